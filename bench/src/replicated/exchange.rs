//! What the bench and the process that runs another system say to each other: lines of JSON.
//!
//! The process is started with the system's name and a directory. When the system runs and holds all items, it
//! says [`Ready`]. Each [`Load`] it reads is answered by a [`Measured`](crate::tally::Measured). It ends the system
//! and itself when its standard input ends.
//!
//! The package of the other systems compiles this very file too: it uses nothing of the workspace.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// A system to compare with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum System {
    /// Three members.
    Etcd,
    /// A primary and a replica.
    Redis,
    /// A primary and a synchronous standby.
    Postgresql,
}

impl System {
    /// All there are.
    pub const ALL: [System; 3] = [System::Etcd, System::Redis, System::Postgresql];
}

impl fmt::Display for System {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            System::Etcd => "etcd",
            System::Redis => "redis",
            System::Postgresql => "postgresql",
        })
    }
}

impl FromStr for System {
    type Err = String;

    fn from_str(name: &str) -> Result<System, String> {
        let found = System::ALL.into_iter().find(|system| system.to_string() == name);
        found.ok_or_else(|| format!("there is no system {name} here"))
    }
}

/// The system runs and holds all items.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Ready {
    /// Its version, and how it was set up.
    pub about: String,
}

/// Puts to be measured.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Load {
    /// How many at a time.
    pub in_flight: u32,
    /// For how long.
    pub seconds: f64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_system_is_found_by_the_name_it_prints_and_by_no_other() {
        for system in System::ALL {
            assert_eq!(system.to_string().parse(), Ok(system));
        }
        assert_eq!("Redis".parse::<System>(), Err("there is no system Redis here".to_owned()));
    }
}
