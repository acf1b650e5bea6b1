//! Metrics of a shard: its counters, copied once a second to handles that were taken once.
//!
//! The request path adds to plain cells; nothing here runs on it.

use crate::links::{LinkCounts, Links};
use crate::requests::{COUNTED, RequestCounts};
use crate::service::CoreShard;
use evenkeel_model::ShardId;
use evenkeel_storage::{EngineStatistics, MergeCounts, ScrubCounts};
use evenkeel_wire::Kind;
use metrics::{Counter, Gauge, Label, counter, gauge};

type Read = fn(&EngineStatistics) -> u64;
type ReadScrub = fn(&ScrubCounts) -> u64;
type ReadMerges = fn(&MergeCounts) -> u64;

/// Counters of the engine: they only rise.
const ENGINE_COUNTERS: [(&str, Read); 8] = [
    ("evenkeel_wal_frames_total", |s| s.frames),
    ("evenkeel_wal_frames_empty_total", |s| s.frames_empty),
    ("evenkeel_wal_records_total", |s| s.records),
    ("evenkeel_wal_written_bytes_total", |s| s.frame_bytes),
    ("evenkeel_refused_table_full_total", |s| s.refused_table_full),
    ("evenkeel_refused_log_full_total", |s| s.refused_log_full),
    ("evenkeel_refused_busy_total", |s| s.refused_busy),
    ("evenkeel_refused_above_share_total", |s| s.refused_above_share),
];

/// States of the engine.
const ENGINE_GAUGES: [(&str, Read); 10] = [
    ("evenkeel_wal_bytes", |s| s.wal_bytes),
    ("evenkeel_wal_bytes_max", |s| s.wal_bytes_max),
    ("evenkeel_wal_segments_live", |s| s.segments_live),
    ("evenkeel_wal_segments_free", |s| s.segments_free),
    ("evenkeel_wal_writes_in_flight", |s| s.writes_in_flight),
    ("evenkeel_wal_frames_queued", |s| s.frames_queued),
    ("evenkeel_table_bytes", |s| s.table_bytes),
    ("evenkeel_table_bytes_max", |s| s.table_bytes_max),
    ("evenkeel_table_items", |s| s.table_items),
    ("evenkeel_partitions", |s| s.partitions),
];

/// Counters of the scrub.
const SCRUB_COUNTERS: [(&str, ReadScrub); 4] = [
    ("evenkeel_scrub_rounds_total", |s| s.rounds),
    ("evenkeel_scrub_pages_total", |s| s.pages),
    ("evenkeel_scrub_frames_total", |s| s.frames),
    ("evenkeel_scrub_bytes_total", |s| s.bytes),
];

/// What the scrub knows to be bad now.
const SCRUB_GAUGES: [(&str, ReadScrub); 2] =
    [("evenkeel_bad_pages", |s| s.bad_pages), ("evenkeel_bad_frames", |s| s.bad_frames)];

/// Counters of checkpoints.
const MERGE_COUNTERS: [(&str, ReadMerges); 6] = [
    ("evenkeel_merges_total", |s| s.merges),
    ("evenkeel_merges_at_marks_total", |s| s.marks),
    ("evenkeel_marks_passed_over_total", |s| s.marks_passed),
    ("evenkeel_flips_total", |s| s.flips),
    ("evenkeel_checkpoints_failed_total", |s| s.failed),
    ("evenkeel_inner_pages_unreleased_total", |s| s.unreleased),
];

/// How one counter of the links is read.
type ReadLinks = fn(&LinkCounts) -> u64;

/// Counters of the links to other cores.
const LINK_COUNTERS: [(&str, ReadLinks); 4] = [
    ("evenkeel_link_messages_sent_total", |counts| counts.sent.get()),
    ("evenkeel_link_messages_received_total", |counts| counts.received.get()),
    ("evenkeel_link_messages_dropped_total", |counts| counts.dropped.get()),
    ("evenkeel_links_made_total", |counts| counts.made.get()),
];

/// Copies one shard's counters.
pub struct Reporter {
    engine_counters: [Counter; ENGINE_COUNTERS.len()],
    engine_gauges: [Gauge; ENGINE_GAUGES.len()],
    scrub_counters: [Counter; SCRUB_COUNTERS.len()],
    scrub_gauges: [Gauge; SCRUB_GAUGES.len()],
    merge_counters: [Counter; MERGE_COUNTERS.len()],
    requests: [Counter; COUNTED.len()],
    refused: [Counter; COUNTED.len()],
    unknown: Counter,
    under_way: Gauge,
    connections: Gauge,
    link_counters: [Counter; LINK_COUNTERS.len()],
    links: Gauge,
    leaders: Gauge,
}

fn kind_name(kind: Kind) -> String {
    format!("{kind:?}")
}

impl Reporter {
    /// Takes the handles for this shard's counters.
    pub fn new(node: u32, shard: ShardId) -> Reporter {
        let own = vec![Label::new("node", node.to_string()), Label::new("shard", shard.to_string())];
        let of_kind = |kind: Kind| {
            let mut labels = own.clone();
            labels.push(Label::new("kind", kind_name(kind)));
            labels
        };
        Reporter {
            engine_counters: ENGINE_COUNTERS.map(|(name, _)| counter!(name, own.clone())),
            engine_gauges: ENGINE_GAUGES.map(|(name, _)| gauge!(name, own.clone())),
            scrub_counters: SCRUB_COUNTERS.map(|(name, _)| counter!(name, own.clone())),
            scrub_gauges: SCRUB_GAUGES.map(|(name, _)| gauge!(name, own.clone())),
            merge_counters: MERGE_COUNTERS.map(|(name, _)| counter!(name, own.clone())),
            requests: COUNTED.map(|kind| counter!("evenkeel_node_requests_total", of_kind(kind))),
            refused: COUNTED.map(|kind| counter!("evenkeel_node_refusals_total", of_kind(kind))),
            unknown: counter!("evenkeel_node_requests_unknown_total", own.clone()),
            under_way: gauge!("evenkeel_node_requests_under_way", own.clone()),
            connections: gauge!("evenkeel_node_connections", own.clone()),
            link_counters: LINK_COUNTERS.map(|(name, _)| counter!(name, own.clone())),
            links: gauge!("evenkeel_links", own.clone()),
            leaders: gauge!("evenkeel_leaders", own.clone()),
        }
    }

    /// Copies the counters as they are now.
    pub fn report(&mut self, shard: &CoreShard, counts: &RequestCounts, links: &Links) {
        let statistics = shard.statistics();
        for (handle, (_, read)) in self.engine_counters.iter().zip(ENGINE_COUNTERS) {
            handle.absolute(read(&statistics));
        }
        for (handle, (_, read)) in self.engine_gauges.iter().zip(ENGINE_GAUGES) {
            handle.set(read(&statistics) as f64);
        }
        let (scrubbed, merged) = (shard.scrub_counts(), shard.checkpoints());
        for (handle, (_, read)) in self.scrub_counters.iter().zip(SCRUB_COUNTERS) {
            handle.absolute(read(&scrubbed));
        }
        for (handle, (_, read)) in self.scrub_gauges.iter().zip(SCRUB_GAUGES) {
            handle.set(read(&scrubbed) as f64);
        }
        for (handle, (_, read)) in self.merge_counters.iter().zip(MERGE_COUNTERS) {
            handle.absolute(read(&merged));
        }
        for (index, (_, seen, refused)) in counts.by_kind().enumerate() {
            self.requests[index].absolute(seen);
            self.refused[index].absolute(refused);
        }
        self.unknown.absolute(counts.unknown());
        self.under_way.set(counts.under_way() as f64);
        self.connections.set(counts.connections() as f64);
        for (handle, (_, read)) in self.link_counters.iter().zip(LINK_COUNTERS) {
            handle.absolute(read(links.counts()));
        }
        self.links.set(links.up_count() as f64);
        self.leaders.set(shard.leader_count() as f64);
    }
}
