//! Every duration and threshold, and the pure decisions that are made with them.

use std::time::Duration;

/// A cycle reads and publishes this often unless told otherwise.
pub const DEFAULT_INTERVAL: Duration = Duration::from_secs(5);
/// Shorter intervals cost the workloads more than they tell.
pub const MIN_INTERVAL: Duration = Duration::from_millis(100);
/// Readings that move slowly (temperatures, limits) are read this often at the most.
pub const SLOW_TIER: Duration = Duration::from_secs(10);
/// The driver's utilization ring is read at least this often. The shortest known ring holds 72
/// samples of 1/6 s, which is 12 s.
pub const RING_READ_EVERY: Duration = Duration::from_secs(5);
/// What is read after a longer time than this has a hole: the ring is no longer.
pub const RING_SPAN: Duration = Duration::from_secs(12);
/// A sample shows up in the ring at most this long after it was taken (the firmware hands them
/// over once a second), so an idle ring's cursor stays this far behind the clock.
pub const RING_LATENCY: Duration = Duration::from_secs(1);
/// A row stamped further ahead of our clock than this is rubbish.
pub const STAMP_TOLERANCE: Duration = Duration::from_secs(1);
/// More GPUs than this are in no machine.
pub const GPUS_MAX: u32 = 256;
/// The largest pid that a 64-bit kernel gives (`PID_MAX_LIMIT`).
pub const PID_MAX: u32 = 4_194_304;
/// The longest `/proc/<pid>/cgroup` that is read, in bytes: sixteen hierarchies with paths of the
/// kernel's greatest length.
pub const CGROUP_TEXT_MAX: u64 = 64 << 10;
/// Processes are moved between cgroups now and then, so a placement is read again after this long.
pub const PLACEMENT_MAX_AGE: Duration = Duration::from_secs(60);
/// A placement that could not be told is looked up every cycle for this long, and then only every
/// [`PLACEMENT_RETRY`].
pub const PLACEMENT_EAGER: Duration = Duration::from_secs(60);
/// How often a placement is looked up that has not been told for long.
pub const PLACEMENT_RETRY: Duration = Duration::from_secs(30);
/// A process that was not listed for this many cycles is forgotten.
pub const PLACEMENT_UNLISTED_CYCLES: u64 = 2;
/// Entries that a directory of logs may have: the kubelet keeps some hundreds.
pub const LOG_ENTRIES_MAX: usize = 16_384;
/// Two samples of GPM are this far apart, at the least.
pub const GPM_WINDOW_MIN: Duration = Duration::from_millis(100);
/// What is remembered of a GPU that is not there any more is kept this long, should it come back.
pub const GPU_REMEMBERED: Duration = Duration::from_secs(3600);
/// A GPU's health is judged by what its counters have grown in this time.
pub const HEALTH_WINDOW: Duration = Duration::from_secs(60);
/// A board's record of itself is checked this often: that reads all of it.
pub const INFOROM_EVERY: Duration = Duration::from_secs(3600);
/// A temperature above this is a sentinel, not a temperature.
pub const TEMPERATURE_MAX: f64 = 200.0;
/// `--once` waits this long for the driver to open.
pub const ONCE_OPEN: Duration = Duration::from_secs(10);
/// `--once` measures utilization over this window.
pub const ONCE_WINDOW: Duration = Duration::from_secs(1);
/// How long a session may take to open: without a persistence daemon the driver wakes its GPUs first.
pub const OPEN_PATIENCE: Duration = Duration::from_secs(5);
/// First pause after a failed attempt to open the driver; doubles up to [`OPEN_BACKOFF_MAX`].
pub const OPEN_BACKOFF_MIN: Duration = Duration::from_secs(1);
/// A session that has lasted so long was a good one; one that ends sooner is a failure to open it.
pub const SESSION_LASTS: Duration = Duration::from_secs(10);
/// A closed session's threads have this long to let go of it before a new one is opened: the library
/// cannot be loaded anew while somebody holds the old one.
pub const RELEASE_GRACE: Duration = Duration::from_secs(5);
/// How long the driver is asked to wait for an event. It is also how long a thread that listens
/// takes to notice that its session is over.
pub const EVENT_WAIT: Duration = Duration::from_secs(1);
/// Pause after a wait for events that failed or came back at once.
pub const EVENT_PAUSE: Duration = Duration::from_secs(1);
/// A GPU that the driver would not tell of is asked about again after this long.
pub const EVENT_RETRY: Duration = Duration::from_secs(10);
/// Waits for events that end in no word for so long hang.
pub const EVENT_SILENCE: Duration = Duration::from_secs(15);
/// The status of a container that has just started may not name its id yet: so long nobody is said
/// to run outside of all pods.
pub const STRAY_PATIENCE: Duration = Duration::from_secs(10);
/// Allocations that the kubelet has not confirmed for this long may lack the newest.
pub const ALLOCATION_MAX_AGE: Duration = Duration::from_secs(60);
/// A kubelet that has never answered within this is not there, or not for us.
pub const KUBELET_PATIENCE: Duration = Duration::from_secs(30);
/// The names of logs are read this often.
pub const POD_LOGS_EVERY: Duration = Duration::from_secs(30);
/// The names of logs are read no more often than this, however much they are missed.
pub const POD_LOGS_PAUSE: Duration = Duration::from_secs(1);
/// The mock's cluster stands up with its library, a moment after the exporter has begun.
pub const STAGE_PATIENCE: Duration = Duration::from_secs(5);
/// How often it is looked for until then.
pub const STAGE_LOOK: Duration = Duration::from_millis(5);
/// A signal lets NVML go for this long at the most.
pub const RELEASE_SIGNAL: Duration = Duration::from_secs(900);
/// So long a label of the node is believed that nobody confirms.
pub const NODE_LABEL_MAX_AGE: Duration = Duration::from_secs(300);
/// Longest pause between attempts to open the driver.
pub const OPEN_BACKOFF_MAX: Duration = Duration::from_secs(30);
/// A counters file is looked at this often; a reload can also be asked for by a signal.
pub const COUNTERS_FILE_EVERY: Duration = Duration::from_secs(1);
/// A `ConfigMap` of counters is asked for this often.
pub const COUNTERS_CONFIG_MAP_EVERY: Duration = Duration::from_secs(30);
/// A client has this long to send its request, and an idle connection lives this long.
pub const HTTP_HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// The settings of `--web-config-file` are looked at this often.
pub const WEB_CONFIG_EVERY: Duration = Duration::from_secs(1);
/// A client has this long for the handshake of TLS.
pub const TLS_HANDSHAKE: Duration = Duration::from_secs(5);
/// A response has this long to be taken, unless the command line says otherwise.
pub const HTTP_WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// Connections that are served at one time.
pub const HTTP_CONNECTIONS: usize = 64;
/// A response that was begun no longer ago makes room for nobody of its own address.
pub const HTTP_UNDISTURBED: Duration = Duration::from_millis(500);
/// Pages of the past that clients may hold, together, in bytes; but one whatever its size.
pub const HTTP_PAST_PAGES: usize = 2 << 20;
/// What the system may keep of responses for one connection, in bytes; it doubles that for its own.
pub const HTTP_SEND_BUFFER: usize = 128 << 10;
/// Pause after a connection that could not be taken for want of something.
pub const HTTP_ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Scrapes in flight have this long to finish after SIGTERM, a little less than all has to be over by.
pub const SHUTDOWN_GRACE: Duration = Duration::from_millis(4500);
/// NVML calls in flight have this long to finish after SIGTERM: a monitor that is killed in the
/// middle of one has been seen to wedge a GPU.
pub const QUIESCE_GRACE: Duration = Duration::from_secs(2);
/// The first list of pods waits a random part of this, so that a roll-out over a thousand nodes
/// does not ask a thousand times in one second.
pub const KUBE_START_JITTER: Duration = Duration::from_secs(10);
/// First pause after the API server or the kubelet failed; doubles up to [`KUBE_BACKOFF_MAX`].
pub const KUBE_BACKOFF_MIN: Duration = Duration::from_secs(1);
/// Longest pause between attempts to reach the API server or the kubelet.
pub const KUBE_BACKOFF_MAX: Duration = Duration::from_secs(60);
/// `check` waits so long for each answer of the API server, the kubelet or whoever is on the port.
pub const CHECK_ANSWER: Duration = Duration::from_secs(2);
/// `check` asks the API server for so long at the most.
pub const CHECK_CLUSTER: Duration = Duration::from_secs(6);
/// A watch of a node by its name ends after this, if the cluster has none.
pub const NODE_NAME_WATCH: Duration = Duration::from_secs(1);
/// 2025-01-01: whatever clock says that it is earlier is wrong, in microseconds since the epoch.
pub const WALL_MIN_US: u64 = 1_735_689_600_000_000;
/// The clock of the wall may run away from the other one by so much within a second or two.
pub const WALL_TOLERANCE: Duration = Duration::from_millis(500);
/// A request to the API server or the kubelet is answered (a watch: begun) within this.
pub const KUBE_ANSWER: Duration = Duration::from_secs(15);
/// A watch that says nothing for this long is dead: real servers send a bookmark a minute.
pub const WATCH_IDLE: Duration = Duration::from_secs(150);
/// The API server ends a watch after this, so that a stale connection is never kept for long.
pub const WATCH_LIFETIME: Duration = Duration::from_secs(290);
/// The pods that a streaming watch begins with have arrived within this; a server that does not
/// mark their end (before 1.27 it does not know how) is asked for a list instead.
pub const WATCH_INITIAL_EVENTS: Duration = Duration::from_secs(30);
/// A process may outlive its pod by this much before its use counts as unallocated: drivers take
/// minutes to tear down a context that hangs. Deleted pods are remembered for as long.
pub const POD_OUTLIVED_MAX: Duration = Duration::from_secs(600);
/// A pod that a kubelet no longer lists, without having reported its end, is kept this long: a
/// kubelet that restarts lists no pods at first, and static pods only while the API server is down.
pub const POD_UNLISTED_MAX: Duration = Duration::from_secs(600);
/// More pods than any kubelet runs.
pub const PODS_MAX: usize = 4096;
/// Container ids that are remembered of one container: the present one and those before it.
pub const CONTAINER_IDS_MAX: usize = 16;
/// The largest object that is taken from the API server; etcd refuses them above 1.5 MiB.
pub const KUBE_OBJECT_MAX: usize = 8 << 20;
/// The kubelet's own list of pods is read this often.
pub const KUBELET_PODS_EVERY: Duration = Duration::from_secs(10);
/// The device assignments are read this often, and after changes of pods.
pub const POD_RESOURCES_EVERY: Duration = Duration::from_secs(10);
/// Changes of pods hasten the next reading of assignments to this distance at the most: the
/// kubelet allows all its clients together 100 questions a second.
pub const POD_RESOURCES_PAUSE: Duration = Duration::from_secs(1);
/// The allocatable devices change with the device plugins only.
pub const ALLOCATABLE_EVERY: Duration = Duration::from_secs(300);
/// A kubelet that does not answer within this is hung.
pub const POD_RESOURCES_ANSWER: Duration = Duration::from_secs(5);
/// The largest answer that is taken from the kubelet: fake ids come to megabytes on real nodes.
pub const POD_RESOURCES_MAX: usize = 64 << 20;
/// Resource slices are read again this often; they change when a driver re-partitions a GPU.
pub const RESOURCE_SLICES_EVERY: Duration = Duration::from_secs(300);
/// A new claim hastens the next reading of slices and claims to this distance at the most.
pub const RESOURCE_SLICES_PAUSE: Duration = Duration::from_secs(5);

/// How often `top` asks another exporter.
pub const TOP_EVERY: Duration = Duration::from_secs(2);
/// How long that exporter may take.
pub const TOP_ANSWER: Duration = Duration::from_secs(5);
/// The longest answer that is taken of it.
pub const TOP_ANSWER_MAX: usize = 64 << 20;
/// How long `top` waits for a key before it looks for news.
pub const TOP_KEYS: Duration = Duration::from_millis(200);
/// How long a verb may be silent before it says what it waits for.
pub const SILENCE: Duration = Duration::from_secs(1);
/// What `/proc` calls an MPS server: `nvidia-cuda-mps-server`, cut to 15 bytes. The control daemon is
/// called the same, and holds no GPU.
#[must_use]
pub fn is_mps_server(comm: &str) -> bool {
    comm == "nvidia-cuda-mps"
}

/// How often a reading is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tier {
    /// Every cycle.
    Cycle,
    /// Every cycle while a video engine works, else at most every [`SLOW_TIER`].
    Video,
    /// At most every [`SLOW_TIER`].
    Slow,
}

impl Tier {
    /// Whether a reading last taken at `last` is to be taken again at `now`.
    #[must_use]
    pub fn due(self, last: Option<Duration>, now: Duration) -> bool {
        match (self, last) {
            (Self::Cycle | Self::Video, _) | (_, None) => true,
            (Self::Slow, Some(last)) => now.saturating_sub(last) >= SLOW_TIER,
        }
    }

    /// How old an unanswered reading may be and still be published.
    #[must_use]
    pub fn max_age(self, max_age: Duration) -> Duration {
        match self {
            Self::Cycle => max_age,
            Self::Video | Self::Slow => max_age.max(2 * SLOW_TIER),
        }
    }
}

/// Whether a placement is to be looked up again `since` it last was. `untold` is for how long it
/// could not be told, if it could not.
#[must_use]
pub fn placement_due(since: Duration, untold: Option<Duration>) -> bool {
    match untold {
        None => since >= PLACEMENT_MAX_AGE,
        Some(untold) => untold <= PLACEMENT_EAGER || since >= PLACEMENT_RETRY,
    }
}

/// `--max-age` when it is not given.
#[must_use]
pub fn default_max_age(interval: Duration) -> Duration {
    (3 * interval).max(Duration::from_secs(15))
}

/// How long a cycle waits for the GPUs before it publishes without those that have not answered.
#[must_use]
pub fn cycle_deadline(interval: Duration) -> Duration {
    (interval / 2).min(Duration::from_secs(2))
}

/// How many times the rings are read in one interval, the cycle's own reading included.
#[must_use]
pub fn ring_reads(interval: Duration) -> u32 {
    let reads = interval.as_millis().div_ceil(RING_READ_EVERY.as_millis());
    u32::try_from(reads).unwrap_or(u32::MAX).max(1)
}

/// The pause after the `failures`th attempt in a row to open the driver has failed.
#[must_use]
pub fn open_backoff(failures: u32) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    OPEN_BACKOFF_MIN.saturating_mul(1 << doublings).min(OPEN_BACKOFF_MAX)
}

/// The pause after the `failures`th failure in a row; `random` (0 to 1) spreads it over the upper
/// half, so that a thousand nodes do not come back in step.
#[must_use]
pub fn jittered_backoff(min: Duration, max: Duration, failures: u32, random: f64) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    let whole = min.saturating_mul(1 << doublings).min(max);
    whole.mul_f64(0.5 + 0.5 * random.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jitter_keeps_a_backoff_between_half_and_whole() {
        let pause = |n, random| jittered_backoff(KUBE_BACKOFF_MIN, KUBE_BACKOFF_MAX, n, random);
        assert_eq!(pause(1, 0.0), Duration::from_millis(500));
        assert_eq!(pause(1, 1.0), Duration::from_secs(1));
        assert_eq!(pause(4, 1.0), Duration::from_secs(8));
        assert_eq!(pause(u32::MAX, 1.0), KUBE_BACKOFF_MAX);
        assert_eq!(pause(3, f64::NAN.max(2.0)), Duration::from_secs(4));
    }

    #[test]
    fn rings_are_read_before_they_wrap() {
        for ms in [100, 1_000, 5_000, 5_001, 30_000, 60_000, 3_600_000] {
            let interval = Duration::from_millis(ms);
            assert!(interval / ring_reads(interval) <= RING_READ_EVERY, "{interval:?}");
        }
        assert_eq!(ring_reads(DEFAULT_INTERVAL), 1);
    }

    #[test]
    fn backoff_doubles_to_its_cap() {
        let pauses: Vec<u64> = (1..8).map(|n| open_backoff(n).as_secs()).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 30, 30]);
        assert_eq!(open_backoff(u32::MAX), OPEN_BACKOFF_MAX);
    }

    #[test]
    fn slow_readings_wait_their_turn() {
        let second = Duration::from_secs(1);
        assert!(Tier::Slow.due(None, second));
        assert!(!Tier::Slow.due(Some(second), 2 * second));
        assert!(Tier::Slow.due(Some(second), second + SLOW_TIER));
        assert_eq!(Tier::Slow.max_age(15 * second), 20 * second);
        assert_eq!(Tier::Slow.max_age(60 * second), 60 * second);
    }

    #[test]
    fn placements_are_looked_up_again_sooner_while_they_are_not_told() {
        let seconds = Duration::from_secs;
        assert!(!placement_due(seconds(59), None));
        assert!(placement_due(seconds(60), None));
        assert!(placement_due(seconds(1), Some(seconds(60))));
        assert!(!placement_due(seconds(29), Some(seconds(61))));
        assert!(placement_due(seconds(30), Some(seconds(61))));
    }

    #[test]
    fn max_age_is_three_intervals_or_fifteen_seconds() {
        assert_eq!(default_max_age(DEFAULT_INTERVAL), Duration::from_secs(15));
        assert_eq!(default_max_age(Duration::from_secs(30)), Duration::from_secs(90));
    }
}
