//! What the families of events say of a GPU.

use std::time::Duration;

use super::{EventSample, Told, xid};
use crate::model::{CLOCK_EVENTS, ClockCounts};

/// The last XID, and what it is called.
pub(super) fn last_xid(told: &Told<'_>) -> Vec<EventSample> {
    let code = told.xids.last.unwrap_or_default();
    let name = || vec![("err_code", code.to_string()), ("err_msg", xid::name(code).to_owned())];
    let labels = if told.names_xid { name() } else { Vec::new() };
    vec![EventSample { labels, reading: told.xids.last() }]
}

/// Each XID of the window; one sample without an XID says that there was none.
pub(super) fn xids_within(told: &Told<'_>) -> Vec<EventSample> {
    let window = ("window_size_in_ms", milliseconds(told.windows.xids));
    let counts = match told.xids.listening {
        Ok(()) => told.xids.within(told.windows.xids, told.now),
        Err(missing) => return vec![Err(missing).into()],
    };
    if counts.is_empty() {
        return vec![EventSample { labels: vec![window], reading: Ok(0.0) }];
    }
    let sample = |(xid, count): (u32, u64)| EventSample {
        labels: vec![window.clone(), ("xid", xid.to_string())],
        reading: Ok(number(count)),
    };
    counts.into_iter().map(sample).collect()
}

/// Each XID since the exporter started: what has been counted stays true whoever listens now.
pub(super) fn xids_in_all(told: &Told<'_>) -> Vec<EventSample> {
    let sample = |(xid, count): (&u32, &u64)| EventSample {
        labels: vec![("xid", xid.to_string())],
        reading: Ok(number(*count)),
    };
    told.xids.counts.iter().map(sample).collect()
}

/// Samples of the window with each reason for lower clocks.
pub(super) fn clock_events_within(told: &Told<'_>) -> Vec<EventSample> {
    let window = milliseconds(told.windows.clocks);
    clock_events(told, |counts| counts.within, &[("window_size_in_ms", window)])
}

/// How often each reason for lower clocks has begun.
pub(super) fn clock_events_in_all(told: &Told<'_>) -> Vec<EventSample> {
    clock_events(told, |counts| counts.begun, &[])
}

fn clock_events(
    told: &Told<'_>,
    of: fn(ClockCounts) -> [u64; CLOCK_EVENTS.len()],
    more: &[(&'static str, String)],
) -> Vec<EventSample> {
    let counts = match told.clocks {
        Ok(counts) => of(counts),
        Err(missing) => return vec![Err(missing).into()],
    };
    let sample = |((event, _), count): (&(&str, u64), u64)| {
        let labels = [&[("clock_event", (*event).to_owned())], more].concat();
        EventSample { labels, reading: Ok(number(count)) }
    };
    CLOCK_EVENTS.iter().zip(counts).map(sample).collect()
}

/// How the GPU reaches each of the others.
pub(super) fn peers(told: &Told<'_>) -> Vec<EventSample> {
    let sample = |(peer, status): &(u32, Result<u32, _>)| EventSample {
        labels: vec![
            ("link_status", status.map_or("", link_status).to_owned()),
            ("peer_gpu", peer.to_string()),
        ],
        reading: status.map(f64::from),
    };
    told.peers.iter().map(sample).collect()
}

/// The state of each link of the GPU.
pub(super) fn links(told: &Told<'_>) -> Vec<EventSample> {
    let links = match told.links {
        Ok(links) => links,
        Err(missing) => return vec![Err(missing).into()],
    };
    let sample = |(link, state): &(u32, Result<u32, _>)| EventSample {
        labels: vec![("nvlink", link.to_string())],
        reading: state.map(f64::from),
    };
    links.iter().map(sample).collect()
}

/// `nvmlGpuP2PStatus_t` as labels name it.
fn link_status(status: u32) -> &'static str {
    match status {
        0 => "OK",
        1 => "ChipsetNotSupported",
        2 => "GPUNotSupported",
        3 => "TopologyNotSupported",
        4 => "DisabledByRegKey",
        5 => "NotSupported",
        _ => "Unknown",
    }
}

fn milliseconds(window: Duration) -> String {
    window.as_millis().to_string()
}

#[expect(clippy::cast_precision_loss, reason = "an exported sample is an f64")]
fn number(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Missing, Windows, XidRecord};

    fn told(xids: &XidRecord) -> Told<'_> {
        Told {
            xids,
            clocks: Err(Missing::Pending),
            peers: &[],
            links: Err(Missing::Pending),
            vitals: Err(Missing::Pending),
            state: Ok(()),
            windows: Windows::default(),
            now: Duration::from_secs(1000),
            names_xid: true,
        }
    }

    fn text(samples: Vec<EventSample>) -> Vec<String> {
        let one = |sample: EventSample| {
            let labels: Vec<_> = sample.labels.iter().map(|(k, v)| format!("{k}={v}")).collect();
            format!("{} {:?}", labels.join(","), sample.reading)
        };
        samples.into_iter().map(one).collect()
    }

    #[test]
    fn no_xid_is_told_while_somebody_listens_and_only_then() {
        let mut record = XidRecord::new();
        assert_eq!(text(xids_within(&told(&record))), [" Err(Pending)"]);
        assert_eq!(text(last_xid(&told(&record))), ["err_code=0,err_msg=No Error Err(Pending)"]);
        record.listening = Ok(());
        assert_eq!(text(xids_within(&told(&record))), ["window_size_in_ms=300000 Ok(0.0)"]);
        assert_eq!(text(xids_in_all(&told(&record))), Vec::<String>::new());
    }

    #[test]
    fn xids_are_told_by_code_in_the_window_and_in_all() {
        let mut record = XidRecord { listening: Ok(()), ..XidRecord::new() };
        record.count(31, Duration::from_secs(1));
        record.count(79, Duration::from_secs(999));
        let window = "window_size_in_ms=300000,xid=79 Ok(1.0)";
        assert_eq!(text(xids_within(&told(&record))), [window]);
        assert_eq!(text(xids_in_all(&told(&record))), ["xid=31 Ok(1.0)", "xid=79 Ok(1.0)"]);
        let last = "err_code=79,err_msg=GPU has fallen off the bus Ok(79.0)";
        assert_eq!(text(last_xid(&told(&record))), [last]);
        let plain = Told { names_xid: false, ..told(&record) };
        assert_eq!(text(last_xid(&plain)), [" Ok(79.0)"]);
    }
}
