//! All durations, limits and thresholds, with the pure functions that use them.

use std::time::Duration;

/// Default of `--collect-interval`: time between two cycles.
pub const DEFAULT_INTERVAL: Duration = Duration::from_secs(5);
/// Minimum of `--collect-interval`; shorter ones cost more than they show.
pub const MIN_INTERVAL: Duration = Duration::from_millis(100);
/// Minimum time between two reads of values that change with the load (clocks, temperatures, limits).
pub const SECOND_TIER: Duration = Duration::from_secs(1);
/// Time between two reads of slowly changing values (error counters, thresholds).
pub const SLOW_TIER: Duration = Duration::from_secs(10);
/// Maximum time between two reads of slowly changing values, if there is a cycle in it.
pub const SLOW_TIER_MAX: Duration = Duration::from_millis(10_500);
/// A cycle may begin this much too early: the one before was late.
pub const CYCLE_JITTER: Duration = Duration::from_millis(50);
/// Maximum time between two reads of the driver's sample buffer (a ring). The shortest known one
/// holds 72 samples of 1/6 s, which is 12 s.
pub const RING_READ_EVERY: Duration = Duration::from_secs(5);
/// Length of the driver's sample buffer: after a longer pause, samples were lost.
pub const RING_SPAN: Duration = Duration::from_secs(12);
/// Maximum time between two samples of the driver; a longer time is a gap.
pub const SAMPLE_PERIOD_MAX: Duration = Duration::from_millis(1_500);
/// Period of the driver's samples on most boards; others take one a second.
pub const SAMPLE_PERIOD_DEFAULT: Duration = Duration::from_micros(166_667);
/// Time without a new sample after which the driver has stopped sampling: a period and a delivery of
/// one second each, and a margin.
pub const SAMPLE_STALL: Duration = Duration::from_secs(3);
/// Maximum age of the newest sample that the driver returns: a period and a delivery of one second each.
pub const SAMPLE_DELAY_MAX: Duration = Duration::from_secs(2);
/// An answer that takes longer than this may contain samples that were taken after the call.
pub const LATE_CALL: Duration = Duration::from_millis(50);
/// A larger change of the offset of the driver's clock is a step of a clock: stamps are late by at
/// most a period and a delivery of one second each.
pub const CLOCK_STEP: Duration = Duration::from_millis(2_500);
/// Window of the offset of the driver's clock; slow drift is followed within two of them.
pub const DRIVER_CLOCK_WINDOW: Duration = Duration::from_secs(60);
/// Maximum difference between the last busy sample of a GPU and the newest row of its processes, if
/// both have stamps of one clock.
pub const CLOCK_AGREEMENT: Duration = Duration::from_millis(500);
/// A load that was busy only between two reads of the utilization samples may be so again within this time.
/// One that is busy for less than [`RING_READ_EVERY`] in a longer time has a mean of at most 3 %.
pub const UNSEEN_LOAD_PERIOD: Duration = Duration::from_secs(180);
/// Number of windows in a row without a valid row of a busy GPU after which it is reported.
pub const REFUSED_WINDOWS: u32 = 3;
/// Maximum age of a field value when the driver returns it: some are cached for a second, and a call may be late.
pub const FIELD_STAMP_AGE: Duration = Duration::from_secs(2);
/// A wall clock that deviates by more than this from the monotonic clock between two readings was
/// set; the kernel slews it by at most 0.05 %.
pub const WALL_CLOCK_STEP: Duration = Duration::from_millis(50);
/// A row with a time stamp further in the future than this is invalid.
pub const STAMP_TOLERANCE: Duration = Duration::from_secs(1);
/// Maximum number of GPUs; a larger count of the driver is invalid.
pub const GPUS_MAX: u32 = 256;
/// Largest PID of a 64-bit kernel (`PID_MAX_LIMIT`).
pub const PID_MAX: u32 = 4_194_304;
/// Maximum size of `/proc/<pid>/cgroup`, bytes: sixteen hierarchies with paths of the kernel's maximum length.
pub const CGROUP_TEXT_MAX: u64 = 64 << 10;
/// Maximum age of a cached cgroup location; processes can be moved between cgroups.
pub const CGROUP_LOCATION_MAX_AGE: Duration = Duration::from_secs(60);
/// Cgroups among which that of the exporter is searched; a node with hundreds of pods has some thousands.
pub const CGROUPS_MAX: usize = 65_536;
/// A cgroup location that cannot be resolved is retried every cycle for this long, then every
/// [`CGROUP_LOCATION_RETRY`].
pub const CGROUP_LOCATION_EAGER: Duration = Duration::from_secs(60);
/// Retry interval of a cgroup location that could not be resolved for [`CGROUP_LOCATION_EAGER`].
pub const CGROUP_LOCATION_RETRY: Duration = Duration::from_secs(30);
/// A process that was not listed for this many cycles is evicted from the cache.
pub const CGROUP_LOCATION_UNLISTED_CYCLES: u64 = 2;
/// Maximum number of entries of a log directory; the kubelet keeps some hundreds.
pub const LOG_ENTRIES_MAX: usize = 16_384;
/// Minimum time between two GPM samples.
pub const GPM_WINDOW_MIN: Duration = Duration::from_millis(100);
/// The state of an absent GPU (counters, events) is kept for this long.
pub const GPU_RETENTION: Duration = Duration::from_secs(3600);
/// Window over which the increase of error counters is judged for a GPU's health.
pub const HEALTH_WINDOW: Duration = Duration::from_secs(60);
/// Interval of the InfoROM validation, which reads all of the InfoROM.
pub const INFOROM_EVERY: Duration = Duration::from_secs(3600);
/// Interval at which links that have no error counters are asked for them again.
pub const LINK_SUPPORT_EVERY: Duration = Duration::from_secs(3600);
/// Largest bit error rate after error correction of a working `NVLink`: that of DCGM's health watch.
pub const LINK_EFFECTIVE_ERROR_RATE_MAX: f64 = 1e-12;
/// Bit error rate of symbols of a working `NVLink`, which stands for none: mantissa 15, exponent 255, as in DCGM's
/// health watch.
pub const LINK_SYMBOL_ERROR_RATE_MAX: f64 = 15e-255;
/// Remapped rows of a board at which DCGM's health watch warns.
pub const REMAPPED_ROWS_MAX: f64 = 512.0;
/// A temperature above this, °C, is a sentinel value.
pub const TEMPERATURE_MAX: f64 = 200.0;
/// Timeout of `--once` for opening the driver and for the sources of the cluster.
pub const ONCE_STARTUP_TIMEOUT: Duration = Duration::from_secs(10);
/// Utilization window of `--once`.
pub const ONCE_WINDOW: Duration = Duration::from_secs(1);
/// Time for a new thread to run. More is needed only while a library does not finish loading.
pub const THREAD_START_TIMEOUT: Duration = Duration::from_secs(1);
/// Timeout for opening an NVML session: without a persistence daemon the driver initializes its GPUs first.
pub const OPEN_TIMEOUT: Duration = Duration::from_secs(5);
/// First backoff after a failed attempt to open the driver; doubles up to [`OPEN_BACKOFF_MAX`].
pub const OPEN_BACKOFF_MIN: Duration = Duration::from_secs(1);
/// A session that ends sooner than this counts as a failed attempt to open it.
pub const SESSION_STABLE_AFTER: Duration = Duration::from_secs(10);
/// A new session waits up to this long for the threads of a closed one: the library cannot be
/// reloaded while a thread still uses it.
pub const RELEASE_GRACE: Duration = Duration::from_secs(5);
/// Timeout of `nvmlEventSetWait_v2`; also how long the event thread takes to notice that its session was closed.
pub const EVENT_WAIT: Duration = Duration::from_secs(1);
/// Pause after a wait for events that failed or returned at once.
pub const EVENT_PAUSE: Duration = Duration::from_secs(1);
/// Retry interval for the event subscription of a GPU.
pub const EVENT_RETRY: Duration = Duration::from_secs(10);
/// A wait for events that has not returned within this time hangs.
pub const EVENT_HUNG_AFTER: Duration = Duration::from_secs(15);
/// A process is not reported as one of a container without a pod until it is this old: the pod's
/// status may lack the id of a container that has just started.
pub const NON_POD_CONTAINER_DELAY: Duration = Duration::from_secs(10);
/// Allocations that the kubelet has not confirmed for this long may be incomplete.
pub const ALLOCATION_MAX_AGE: Duration = Duration::from_secs(60);
/// Interval of reading the pod log directory.
pub const POD_LOGS_EVERY: Duration = Duration::from_secs(30);
/// Minimum time between two reads of the pod log directory.
pub const POD_LOGS_PAUSE: Duration = Duration::from_secs(1);
/// Startup timeout of the mock environment: its cluster starts with its library, after the exporter.
pub const MOCK_STARTUP_TIMEOUT: Duration = Duration::from_secs(5);
/// Time between the first server of a mock cluster and its API server, on a busy machine.
pub const MOCK_API_STARTUP_TIMEOUT: Duration = Duration::from_secs(2);
/// Poll interval until the mock environment has started.
pub const MOCK_STARTUP_POLL: Duration = Duration::from_millis(5);
/// Maximum duration of a driver release that was requested by a signal.
pub const RELEASE_SIGNAL: Duration = Duration::from_secs(900);
/// Maximum age of an unconfirmed node label.
pub const NODE_LABEL_MAX_AGE: Duration = Duration::from_secs(300);
/// Maximum backoff between attempts to open the driver.
pub const OPEN_BACKOFF_MAX: Duration = Duration::from_secs(30);
/// Interval of reading the PCI bus of a node without an NVIDIA GPU.
pub const PCI_BUS_EVERY: Duration = Duration::from_secs(30);
/// Poll interval of a counters file; SIGHUP reloads it at once.
pub const COUNTERS_FILE_EVERY: Duration = Duration::from_secs(1);
/// Poll interval of a counters `ConfigMap`.
pub const COUNTERS_CONFIG_MAP_EVERY: Duration = Duration::from_secs(30);
/// Lifetime of an idle connection that has had a request, unless the read timeout is longer. Scrape
/// intervals are up to a minute, and without the connection each of them has a TLS handshake.
pub const HTTP_IDLE_TIMEOUT: Duration = Duration::from_secs(120);
/// Poll interval of `--web-config-file`.
pub const WEB_CONFIG_EVERY: Duration = Duration::from_secs(1);
/// Maximum time that a startup probe waits for the end of the startup: longer than [`OPEN_TIMEOUT`], and
/// shorter than the timeout of the probe.
pub const STARTUP_PROBE_WAIT: Duration = Duration::from_secs(8);
/// Time between the cycles of the startup: until the cluster's sources have responded, a cycle of the
/// configured interval would delay the attribution by up to that interval.
pub const STARTUP_INTERVAL: Duration = Duration::from_millis(500);
/// Longest duration of the startup: sources that have not responded by then are down.
pub const STARTUP_MAX: Duration = Duration::from_secs(15);
/// Rate limit of the readiness probes of one client, if there is a rate limit: a kubelet sends one in
/// some seconds.
pub const HTTP_READINESS_INTERVAL: Duration = Duration::from_millis(100);
/// Readiness probes of one client at once.
pub const HTTP_READINESS_BURST: u32 = 20;
/// Timeout of a TLS handshake.
pub const TLS_HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Maximum number of open connections.
pub const HTTP_CONNECTIONS: usize = 64;
/// A response younger than this is not evicted for a peer that has as many connections itself.
pub const HTTP_EVICTION_GRACE: Duration = Duration::from_millis(500);
/// Maximum size of outdated response bodies that slow clients keep in memory, bytes in total. The
/// newest of them is kept whatever its size.
pub const HTTP_STALE_BODIES_MAX: usize = 2 << 20;
/// Socket send buffer of one connection, bytes; the kernel doubles it for its own overhead.
pub const HTTP_SEND_BUFFER: usize = 128 << 10;
/// Pause after `accept` failed for lack of a resource.
pub const HTTP_ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Time for scrapes in flight to finish after SIGTERM.
pub const SHUTDOWN_GRACE: Duration = Duration::from_millis(4500);
/// Time for NVML calls in flight to finish after SIGTERM: killing a monitor during a call has made
/// GPUs unusable.
pub const QUIESCE_GRACE: Duration = Duration::from_secs(2);
/// After the connection of a watch broke, the next request is delayed by a random part of this: all
/// watches of an API server break at once when it restarts. The first request of a start is not delayed,
/// because a rollout starts one node after the other.
pub const KUBE_RECONNECT_JITTER: Duration = Duration::from_secs(10);
/// First backoff after a failed request to the API server or the kubelet; doubles up to
/// [`KUBE_BACKOFF_MAX`].
pub const KUBE_BACKOFF_MIN: Duration = Duration::from_secs(1);
/// Maximum backoff between requests to the API server or the kubelet.
pub const KUBE_BACKOFF_MAX: Duration = Duration::from_secs(60);
/// Time that a cycle waits for a file; a local file system needs microseconds.
pub const FILE_TIMEOUT: Duration = Duration::from_millis(500);
/// Timeout for the files that the exporter needs to start.
pub const FILE_STARTUP_TIMEOUT: Duration = Duration::from_secs(10);
/// Timeout for reading a kubeconfig, and the certificates and tokens of a server.
pub const KUBE_FILES_TIMEOUT: Duration = Duration::from_secs(10);
/// A source that does not respond for this long is reported as down. API servers and kubelets restart
/// in less, and end watches at any time.
pub const SOURCE_DOWN_AFTER: Duration = Duration::from_secs(30);
/// Timeout of `check` for a response of the kubelet or of the process on the port.
pub const CHECK_TIMEOUT: Duration = Duration::from_secs(2);
/// Timeout of `check` for all requests to the API server.
pub const CHECK_API_TIMEOUT: Duration = Duration::from_secs(6);
/// Lifetime of the watch that checks whether a node exists.
pub const NODE_NAME_WATCH: Duration = Duration::from_secs(1);
/// 2025-01-01 in microseconds since the epoch; an earlier wall clock is wrong.
pub const WALL_MIN_US: u64 = 1_735_689_600_000_000;
/// Maximum deviation of the wall clock from the monotonic clock during a check.
pub const WALL_CLOCK_TOLERANCE: Duration = Duration::from_millis(500);
/// Timeout of a request to the API server or the kubelet; for a watch, until it begins.
pub const KUBE_TIMEOUT: Duration = Duration::from_secs(15);
/// A watch without an event for this long is dead: API servers send a bookmark every minute.
pub const WATCH_IDLE: Duration = Duration::from_secs(150);
/// Shortest requested lifetime of a watch (`timeoutSeconds`), which limits the age of a stale connection.
pub const WATCH_LIFETIME_MIN: Duration = Duration::from_secs(290);
/// Timeout for the initial events of a watch list. If the server does not mark their end (before
/// 1.27), the pods are listed instead.
pub const WATCH_INITIAL_EVENTS: Duration = Duration::from_secs(30);
/// A process may outlive its pod by this much before its use counts as unallocated, because drivers
/// take minutes to tear down a context that hangs. Deleted pods are kept for as long.
pub const POD_OUTLIVED_MAX: Duration = Duration::from_secs(600);
/// A pod of a GPU group without a reservation pod is not reported as one without an allocation until
/// it is this old: the list of a kubelet that has just started may lack the reservation pod.
pub const RESERVATION_DELAY: Duration = Duration::from_secs(60);
/// A pod that a kubelet no longer lists, without having reported its end, is kept this long: a
/// restarted kubelet lists no pods at first, and static pods only while the API server is down.
pub const POD_UNLISTED_MAX: Duration = Duration::from_secs(600);
/// Maximum number of pods of a node; no kubelet runs as many.
pub const PODS_MAX: usize = 4096;
/// Maximum number of ids kept of one container: the current one and those before it.
pub const CONTAINER_IDS_MAX: usize = 16;
/// Maximum size of an object of the API server, bytes; etcd rejects objects above 1.5 MiB.
pub const KUBE_OBJECT_MAX: usize = 8 << 20;
/// Timeout of the first attempt to read the Pods API: a kubelet that has it responds at once, and without
/// it the pods are read from elsewhere, early enough for the first seconds of the exporter.
pub const PODS_API_FIRST_TIMEOUT: Duration = Duration::from_millis(1500);
/// Time for the Pods API to respond again before the pods are read from elsewhere: a kubelet restarts in
/// less, and ten thousand of them are upgraded one after the other.
pub const PODS_API_GRACE: Duration = Duration::from_secs(20);
/// The same on the mock: its kubelet restarts at once.
pub const MOCK_PODS_API_GRACE: Duration = Duration::from_secs(3);
/// The interval of the lists on the mock: its scenarios are short.
pub const MOCK_PODS_API_LIST_EVERY: Duration = Duration::from_secs(5);
/// Interval of the lists that accompany a watch of the Pods API: the kubelet drops events of a watch that
/// is behind, and a hung kubelet is noticed.
pub const PODS_API_LIST_EVERY: Duration = Duration::from_secs(60);
/// Maximum age of the credentials of polls, as in client-go: the kubelet replaces a token long before it expires.
pub const CREDENTIALS_MAX_AGE: Duration = Duration::from_secs(60);
/// Time in which the containers of a pod end after it was deleted: the default grace period of 30 s, and a margin. The
/// kubelet may list its devices meanwhile.
pub const POD_END_MAX: Duration = Duration::from_secs(60);
/// Poll interval of the kubelet's pod list.
pub const KUBELET_PODS_EVERY: Duration = Duration::from_secs(10);
/// A source of pods that did not respond for longer than two polls had a gap, in which pods may have come and gone.
pub const PODS_GAP_MIN: Duration = Duration::from_secs(20);
/// Poll interval of the kubelet's `PodResources` API; changes of pods cause an earlier read.
pub const POD_RESOURCES_EVERY: Duration = Duration::from_secs(10);
/// Minimum time between two reads of the `PodResources` API: the kubelet allows all its clients
/// together 100 requests a second.
pub const POD_RESOURCES_PAUSE: Duration = Duration::from_secs(1);
/// Poll interval of the allocatable devices, which change with the device plugins only.
pub const ALLOCATABLE_EVERY: Duration = Duration::from_secs(300);
/// Timeout of a `PodResources` request.
pub const POD_RESOURCES_TIMEOUT: Duration = Duration::from_secs(5);
/// Maximum size of a `PodResources` response, bytes; fake device ids add up to megabytes.
pub const POD_RESOURCES_MAX: usize = 64 << 20;
/// Poll interval of resource slices, which change when a DRA driver partitions a GPU. Also the
/// maximum backoff for a claimed device that is in no slice: its driver may be gone for good.
pub const RESOURCE_SLICES_EVERY: Duration = Duration::from_secs(300);
/// Minimum time between two reads of resource slices; a new claim causes an earlier read.
pub const RESOURCE_SLICES_PAUSE: Duration = Duration::from_secs(5);
/// Maximum backoff for a resource claim that the API server refuses to return, or that is not
/// reserved for the pod: without the permission to read claims, every node sends these requests.
pub const RESOURCE_CLAIM_REFUSED_BACKOFF_MAX: Duration = Duration::from_secs(600);
/// Maximum number of devices of a resource claim; the API allows 32.
pub const CLAIM_DEVICES_MAX: usize = 256;

/// Step of the curves of the web page, unless the interval is longer.
pub const RECENT_USE_STEP: Duration = Duration::from_secs(10);
/// Number of steps that are kept: ten minutes.
pub const RECENT_USE_POINTS: usize = 60;

/// Interval of `top`, unless the one of the exporter is shorter.
pub const TOP_EVERY: Duration = Duration::from_secs(2);
/// Timeout of a request of `top` to another exporter.
pub const TOP_TIMEOUT: Duration = Duration::from_secs(5);
/// Maximum size of a response of another exporter, bytes.
pub const TOP_RESPONSE_MAX: usize = 64 << 20;
/// Timeout of `top` for a key press before it checks for new data.
pub const TOP_KEY_TIMEOUT: Duration = Duration::from_millis(200);
/// A subcommand that waits longer than this prints what it waits for.
pub const SLOW_NOTICE_AFTER: Duration = Duration::from_secs(1);
/// Framebuffer of an MPS server without clients, bytes. Before Volta it holds that of its clients, too.
pub const MPS_SERVER_FRAMEBUFFER_MAX: u64 = 128 << 20;
/// Framebuffer without a listed process that the driver itself may use, bytes.
pub const UNLISTED_FRAMEBUFFER_MIN: u64 = 1 << 30;
/// The same on large boards, as a divisor of the total framebuffer: 2 %.
pub const UNLISTED_FRAMEBUFFER_RATIO: u64 = 50;
/// GPU utilization, percent, that listed processes can cause although each of them rounds to 0.
pub const IDLE_LIST_UTILIZATION_MAX: f64 = 10.0;
/// Framebuffer of a process that no board has, bytes: the driver's value is invalid.
pub const FRAMEBUFFER_MAX: u64 = 4 << 40;
/// Whether a process name of `/proc` is that of an MPS server: `nvidia-cuda-mps-server`, truncated
/// to 15 bytes. The MPS control daemon has the same truncated name, but does not use a GPU.
#[must_use]
pub fn is_mps_server(comm: &str) -> bool {
    comm == "nvidia-cuda-mps"
}

/// How often a reading is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tier {
    /// Every cycle.
    Cycle,
    /// Every cycle, but at most every [`SECOND_TIER`].
    Second,
    /// Every [`SLOW_TIER`], or every cycle if that is longer.
    Slow,
}

impl Tier {
    /// Whether a value last read at `last` is due at `now`.
    #[must_use]
    pub fn due(self, last: Option<Duration>, now: Duration) -> bool {
        match (self, last) {
            (Self::Cycle, _) | (_, None) => true,
            (Self::Second, Some(last)) => now.saturating_sub(last) + CYCLE_JITTER >= SECOND_TIER,
            (Self::Slow, Some(last)) => now.saturating_sub(last) >= SLOW_TIER,
        }
    }

    /// Maximum age of a reading at the end of a cycle, if cycles are `interval` apart and the driver
    /// responds.
    #[must_use]
    pub fn age(self, interval: Duration) -> Duration {
        match self {
            Self::Cycle => interval,
            Self::Second => interval.max(SECOND_TIER),
            Self::Slow => interval.max(SLOW_TIER_MAX),
        }
    }

    /// Maximum age of a published reading while no newer one is available.
    #[must_use]
    pub fn max_age(self, max_age: Duration) -> Duration {
        match self {
            Self::Cycle | Self::Second => max_age,
            Self::Slow => max_age.max(2 * SLOW_TIER),
        }
    }
}

/// Whether a cgroup location is due for a read `since` the last one. `unresolved` is how long it
/// could not be resolved, if it could not.
#[must_use]
pub fn cgroup_location_due(since: Duration, unresolved: Option<Duration>) -> bool {
    match unresolved {
        None => since >= CGROUP_LOCATION_MAX_AGE,
        Some(unresolved) => unresolved <= CGROUP_LOCATION_EAGER || since >= CGROUP_LOCATION_RETRY,
    }
}

/// Default of `--max-age`.
#[must_use]
pub fn default_max_age(interval: Duration) -> Duration {
    (3 * interval).max(Duration::from_secs(15))
}

/// Whether slowly changing values that were last read at `last` are due at `now`: in the next cycle,
/// which is `interval` later, they would be too old.
#[must_use]
pub fn slow_tier_due(last: Duration, now: Duration, interval: Duration) -> bool {
    now.saturating_sub(last) + interval > SLOW_TIER_MAX
}

/// Maximum age of a snapshot while the sampling thread is alive: a cycle never waits for the driver or a
/// file, but a node may be overloaded.
#[must_use]
pub fn liveness_max_age(interval: Duration) -> Duration {
    2 * interval + Duration::from_secs(60)
}

/// How long a cycle waits for the GPUs before it publishes without those that have not responded.
#[must_use]
pub fn cycle_deadline(interval: Duration) -> Duration {
    (interval / 2).min(Duration::from_secs(2))
}

/// Number of reads of the driver's sample buffers per interval, including the one of the cycle.
#[must_use]
pub fn ring_reads(interval: Duration) -> u32 {
    let reads = interval.as_millis().div_ceil(RING_READ_EVERY.as_millis());
    u32::try_from(reads).unwrap_or(u32::MAX).max(1)
}

/// Backoff after the `failures`th consecutive failed attempt to open the driver.
#[must_use]
pub fn open_backoff(failures: u32) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    OPEN_BACKOFF_MIN.saturating_mul(1 << doublings).min(OPEN_BACKOFF_MAX)
}

/// Backoff after the `failures`th consecutive failure. `random` (0 to 1) spreads it over the upper
/// half, so that a thousand nodes do not retry at the same time.
#[must_use]
pub fn jittered_backoff(min: Duration, max: Duration, failures: u32, random: f64) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    let whole = min.saturating_mul(1 << doublings).min(max);
    whole.mul_f64(0.5 + 0.5 * random.clamp(0.0, 1.0))
}

/// Requested lifetime of a watch. `random` (0 to 1) spreads it up to twice the minimum: watches that
/// began together do not end together.
#[must_use]
pub fn watch_lifetime(random: f64) -> Duration {
    WATCH_LIFETIME_MIN.mul_f64(1.0 + random.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jittered_backoff_is_between_half_and_whole() {
        let pause = |n, random| jittered_backoff(KUBE_BACKOFF_MIN, KUBE_BACKOFF_MAX, n, random);
        assert_eq!(pause(1, 0.0), Duration::from_millis(500));
        assert_eq!(pause(1, 1.0), Duration::from_secs(1));
        assert_eq!(pause(4, 1.0), Duration::from_secs(8));
        assert_eq!(pause(u32::MAX, 1.0), KUBE_BACKOFF_MAX);
        assert_eq!(pause(3, f64::NAN.max(2.0)), Duration::from_secs(4));
    }

    #[test]
    fn shutdown_takes_at_most_five_seconds() {
        assert!(SHUTDOWN_GRACE < Duration::from_secs(5), "and the process has to end then");
        assert!(cycle_deadline(Duration::MAX) + QUIESCE_GRACE <= SHUTDOWN_GRACE);
    }

    #[test]
    fn sample_buffers_are_read_before_they_wrap() {
        for ms in [100, 1_000, 5_000, 5_001, 30_000, 60_000, 3_600_000] {
            let interval = Duration::from_millis(ms);
            assert!(interval / ring_reads(interval) <= RING_READ_EVERY, "{interval:?}");
        }
        assert_eq!(ring_reads(DEFAULT_INTERVAL), 1);
    }

    #[test]
    fn backoff_doubles_up_to_its_maximum() {
        let pauses: Vec<u64> = (1..8).map(|n| open_backoff(n).as_secs()).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 30, 30]);
        assert_eq!(open_backoff(u32::MAX), OPEN_BACKOFF_MAX);
    }

    #[test]
    fn slow_values_are_at_most_ten_and_a_half_seconds_old_at_any_interval() {
        for ms in [100_u32, 300, 1000, 1001, 2000, 3000, 5000, 5003, 7000, 10_000] {
            let interval = Duration::from_millis(u64::from(ms));
            let (mut last, mut now) = (Duration::ZERO, Duration::ZERO);
            for _ in 0..1000 {
                now += interval;
                let age = now.saturating_sub(last);
                assert!(age <= SLOW_TIER_MAX, "{age:?} old at {interval:?}");
                if slow_tier_due(last, now, interval) {
                    last = now;
                }
            }
        }
        let minute = Duration::from_secs(60);
        assert!(slow_tier_due(Duration::ZERO, minute, minute));
    }

    #[test]
    fn slow_tier_is_due_after_its_interval() {
        let second = Duration::from_secs(1);
        assert!(Tier::Slow.due(None, second));
        assert!(!Tier::Slow.due(Some(second), 2 * second));
        assert!(Tier::Slow.due(Some(second), second + SLOW_TIER));
        assert_eq!(Tier::Slow.max_age(15 * second), 20 * second);
        assert_eq!(Tier::Slow.max_age(60 * second), 60 * second);
    }

    #[test]
    fn unresolved_location_is_due_sooner() {
        let seconds = Duration::from_secs;
        assert!(!cgroup_location_due(seconds(59), None));
        assert!(cgroup_location_due(seconds(60), None));
        assert!(cgroup_location_due(seconds(1), Some(seconds(60))));
        assert!(!cgroup_location_due(seconds(29), Some(seconds(61))));
        assert!(cgroup_location_due(seconds(30), Some(seconds(61))));
    }

    #[test]
    fn max_age_is_three_intervals_or_fifteen_seconds() {
        assert_eq!(default_max_age(DEFAULT_INTERVAL), Duration::from_secs(15));
        assert_eq!(default_max_age(Duration::from_secs(30)), Duration::from_secs(90));
    }
}
