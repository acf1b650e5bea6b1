//! SIGKILL while writing: whatever was acknowledged is there after the restart, whole.
//!
//! A few kills run with all tests. `EVENKEEL_LONG=1` makes them twenty and takes the Debian package index
//! of the machine instead of a generated one.

mod index;
mod writers;

use evenkeel_cluster_tests::{Dev, Random, data_directory};
use writers::Writers;

fn is_long() -> bool {
    std::env::var_os("EVENKEEL_LONG").is_some_and(|value| value == "1")
}

#[tokio::test]
async fn kills_in_a_row_lose_nothing_that_was_acknowledged() {
    let mut random = Random::from_environment();
    let directory = data_directory();
    let mut writers = Writers::new(&mut random);
    let kills = if is_long() { 20 } else { 3 };
    for kill in 0..=kills {
        let dev = Dev::start(directory.path());
        println!("ready after {:?}, {kill} kills so far", dev.ready_after());
        if kill == 0 {
            writers.create_table(&dev).await;
        }
        writers.verify(&dev).await;
        if kill < kills {
            let acknowledged = 300 + random.below(3_000);
            let (dev, written) = writers.write_until(dev, acknowledged).await;
            let exit = dev.kill();
            println!("killed after {acknowledged} acknowledged writes: {}", exit.status);
            writers.take_back(written).await;
        } else {
            let exit = dev.stop();
            assert_eq!(exit.status.code(), Some(0), "{exit:?}");
        }
    }
}

#[tokio::test]
async fn an_imported_package_index_reads_back_equal_and_a_kill_loses_no_acknowledged_line() {
    let mut random = Random::from_environment();
    let stanzas = if is_long() { index::debian() } else { index::generated(4_000, &mut random) };
    index::import_and_kill(stanzas, &mut random).await;
}
