//! Counters of a shard's service, in plain cells: the request path only adds.

use evenkeel_wire::Kind;
use std::cell::Cell;

/// The kinds of request that are counted apart.
pub const COUNTED: [Kind; 18] = [
    Kind::Hello,
    Kind::Get,
    Kind::Put,
    Kind::Delete,
    Kind::Update,
    Kind::Range,
    Kind::Watch,
    Kind::PartitionStatistics,
    Kind::CreateTable,
    Kind::UpdateTable,
    Kind::DeleteTable,
    Kind::ChangeUser,
    Kind::CreatePartition,
    Kind::DropPartition,
    Kind::Join,
    Kind::RegisterNode,
    Kind::SwapMember,
    Kind::PartitionState,
];

/// Requests seen and refused, by kind, and those under way.
#[derive(Default)]
pub struct RequestCounts {
    seen: [Cell<u64>; COUNTED.len()],
    refused: [Cell<u64>; COUNTED.len()],
    unknown: Cell<u64>,
    under_way: Cell<u64>,
    connections: Cell<u64>,
}

fn add(cell: &Cell<u64>) {
    cell.set(cell.get() + 1);
}

fn index(kind: Kind) -> Option<usize> {
    COUNTED.iter().position(|counted| *counted == kind)
}

impl RequestCounts {
    /// A request begins.
    pub fn begin(&self, kind: Option<Kind>) {
        add(&self.under_way);
        match kind.and_then(index) {
            Some(index) => add(&self.seen[index]),
            None => add(&self.unknown),
        }
    }

    /// A request ends.
    pub fn end(&self) {
        self.under_way.set(self.under_way.get() - 1);
    }

    /// A request was refused.
    pub fn refused(&self, kind: Option<Kind>) {
        if let Some(index) = kind.and_then(index) {
            add(&self.refused[index]);
        }
    }

    /// A connection was opened.
    pub fn opened(&self) {
        add(&self.connections);
    }

    /// A connection was closed.
    pub fn closed(&self) {
        self.connections.set(self.connections.get() - 1);
    }

    /// Kind, seen and refused of every counted kind.
    pub fn by_kind(&self) -> impl Iterator<Item = (Kind, u64, u64)> + '_ {
        COUNTED
            .iter()
            .enumerate()
            .map(|(index, kind)| (*kind, self.seen[index].get(), self.refused[index].get()))
    }

    /// Requests of kinds unknown here.
    pub fn unknown(&self) -> u64 {
        self.unknown.get()
    }

    /// Requests under way now.
    pub fn under_way(&self) -> u64 {
        self.under_way.get()
    }

    /// Connections open now.
    pub fn connections(&self) -> u64 {
        self.connections.get()
    }
}
