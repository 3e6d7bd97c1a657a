//! Samples of the event families of a GPU.

use std::time::Duration;

use nvml_wrapper_sys::bindings as nvml;

use super::event_source::{EventSample, GpuEventInputs};
use super::xid;
use crate::model::{ALWAYS_REPORTED, CLOCK_EVENTS, ClockEventCounts, LinkFields, Missing, Reading};

/// The last XID, with its code and name as labels.
pub(super) fn last_xid(inputs: &GpuEventInputs<'_>) -> Vec<EventSample> {
    let code = inputs.xids.last.unwrap_or_default();
    let name = || vec![("err_code", code.to_string()), ("err_msg", xid::name(code).to_owned())];
    let labels = if inputs.label_last_xid { name() } else { Vec::new() };
    vec![EventSample { labels, reading: inputs.xids.last() }]
}

/// Counts within the window, by XID; one sample of 0 without the label `xid` if there was none.
pub(super) fn xids_in_window(inputs: &GpuEventInputs<'_>) -> Vec<EventSample> {
    let window = ("window_size_in_ms", milliseconds(inputs.windows.xids));
    let counts = match inputs.xids.subscribed {
        Ok(()) => &inputs.xids.in_window,
        Err(missing) => return vec![Err(missing).into()],
    };
    if counts.is_empty() {
        return vec![EventSample { labels: vec![window], reading: Ok(0.0) }];
    }
    let sample = |(xid, count): (&u32, &u64)| EventSample {
        labels: vec![window.clone(), ("xid", xid.to_string())],
        reading: Ok(number(*count)),
    };
    counts.iter().map(sample).collect()
}

/// Counts since the exporter started, by XID. Valid even while the events are not subscribed to.
pub(super) fn xids_total(inputs: &GpuEventInputs<'_>) -> Vec<EventSample> {
    let sample = |(xid, count): (&u32, &u64)| EventSample {
        labels: vec![("xid", xid.to_string())],
        reading: Ok(number(*count)),
    };
    inputs.xids.counts.iter().map(sample).collect()
}

/// Samples within the window in which a clock event reason was active, by reason.
pub(super) fn clock_events_in_window(inputs: &GpuEventInputs<'_>) -> Vec<EventSample> {
    let window = milliseconds(inputs.windows.clock_events);
    clock_events(inputs, |counts| counts.in_window, &[("window_size_in_ms", window)])
}

/// How often a clock event reason became active, by reason.
pub(super) fn clock_events_total(inputs: &GpuEventInputs<'_>) -> Vec<EventSample> {
    clock_events(inputs, |counts| counts.onsets, &[])
}

fn clock_events(
    inputs: &GpuEventInputs<'_>,
    of: fn(ClockEventCounts) -> [u64; CLOCK_EVENTS.len()],
    labels: &[(&'static str, String)],
) -> Vec<EventSample> {
    let counts = match inputs.clock_events {
        Ok(counts) => counts,
        Err(missing) => return vec![Err(missing).into()],
    };
    let reported = |(index, ((_, bits), _)): &(usize, (&(&str, u64), u64))| {
        *index < ALWAYS_REPORTED || counts.seen & bits != 0
    };
    let sample = |(_, ((event, _), count)): (usize, (&(&str, u64), u64))| {
        let labels = [&[("clock_event", (*event).to_owned())], labels].concat();
        EventSample { labels, reading: Ok(number(count)) }
    };
    CLOCK_EVENTS.iter().zip(of(counts)).enumerate().filter(reported).map(sample).collect()
}

/// Peer-to-peer status, by other GPU.
pub(super) fn peers(inputs: &GpuEventInputs<'_>) -> Vec<EventSample> {
    let sample = |(peer, status): &(u32, Result<u32, _>)| EventSample {
        labels: vec![
            ("link_status", status.map_or("", link_status).to_owned()),
            ("peer_gpu", peer.to_string()),
        ],
        reading: status.map(f64::from),
    };
    inputs.peers.iter().map(sample).collect()
}

/// State of each `NVLink`.
pub(super) fn links(inputs: &GpuEventInputs<'_>) -> Vec<EventSample> {
    let links = match inputs.links {
        Ok(links) => links,
        Err(missing) => return vec![Err(missing).into()],
    };
    let sample = |(link, state): &(u32, Result<u32, _>)| EventSample {
        labels: vec![("nvlink", link.to_string())],
        reading: state.map(f64::from),
    };
    links.iter().map(sample).collect()
}

/// A converted field of each `NVLink`.
pub(super) fn nvlink_field(
    inputs: &GpuEventInputs<'_>,
    field: u32,
    convert: fn(f64) -> Reading,
) -> Vec<EventSample> {
    link_field("nvlink", inputs.nvlink_fields, field, convert)
}

/// The converted increase per second of the sum of fields of each `NVLink`.
pub(super) fn nvlink_rate(
    inputs: &GpuEventInputs<'_>,
    fields: &[u32],
    convert: fn(f64) -> f64,
) -> Vec<EventSample> {
    let rates = match inputs.nvlink_rates {
        Ok(rates) => rates,
        Err(missing) => return vec![Err(missing).into()],
    };
    let Some(links) = fields.first().and_then(|field| rates.get(field)) else {
        return vec![Err(Missing::Pending).into()];
    };
    let of_link = |field: &u32, link| {
        let mut of_field = rates.get(field).into_iter().flatten();
        of_field.find(|(other, _)| *other == link).map_or(Err(Missing::Pending), |(_, rate)| *rate)
    };
    let sample = |(link, _): &(u32, Reading)| {
        let sum = fields.iter().map(|field| of_link(field, *link)).sum::<Reading>();
        EventSample { labels: vec![("nvlink", link.to_string())], reading: sum.map(convert) }
    };
    links.iter().map(sample).collect()
}

/// An error counter of each `NVLink`.
pub(super) fn nvlink_errors(inputs: &GpuEventInputs<'_>, counter: u32) -> Vec<EventSample> {
    link_field("nvlink", inputs.nvlink_errors, counter, Ok)
}

/// Whether the checksum of the InfoROM is valid.
pub(super) fn inforom_valid(inputs: &GpuEventInputs<'_>) -> Vec<EventSample> {
    let valid = inputs.health.and_then(|health| health.sample.inforom_valid);
    vec![valid.map(|valid| f64::from(u8::from(valid))).into()]
}

/// A field of each C2C link.
pub(super) fn c2c_field(inputs: &GpuEventInputs<'_>, field: u32) -> Vec<EventSample> {
    link_field("c2c_link", inputs.c2c_fields, field, Ok)
}

fn link_field(
    label: &'static str,
    fields: Result<&LinkFields, Missing>,
    field: u32,
    convert: fn(f64) -> Reading,
) -> Vec<EventSample> {
    let links = fields.and_then(|fields| fields.get(&field).ok_or(Missing::Pending));
    let sample = |(link, reading): &(u32, Reading)| EventSample {
        labels: vec![(label, link.to_string())],
        reading: reading.and_then(convert),
    };
    links.map_or_else(
        |missing| vec![Err(missing).into()],
        |links| links.iter().map(sample).collect(),
    )
}

/// 1, with the place of the GPU in its rack as labels.
pub(super) fn platform_info(inputs: &GpuEventInputs<'_>) -> Vec<EventSample> {
    let platform = match inputs.platform {
        Ok(platform) => platform,
        Err(missing) => return vec![Err(missing).into()],
    };
    let number = |number: Option<u8>| number.map_or_else(String::new, |n| n.to_string());
    let labels = vec![
        ("chassis_serial", platform.chassis_serial.clone()),
        ("host", number(platform.host)),
        ("module", platform.module.to_string()),
        ("slot", number(platform.slot)),
        ("tray", number(platform.tray)),
    ];
    vec![EventSample { labels, reading: Ok(1.0) }]
}

/// Label value of an `nvmlGpuP2PStatus_t`.
fn link_status(status: u32) -> &'static str {
    match status {
        nvml::nvmlGpuP2PStatus_enum_NVML_P2P_STATUS_OK => "OK",
        nvml::nvmlGpuP2PStatus_enum_NVML_P2P_STATUS_CHIPSET_NOT_SUPPORTED => "ChipsetNotSupported",
        nvml::nvmlGpuP2PStatus_enum_NVML_P2P_STATUS_GPU_NOT_SUPPORTED => "GPUNotSupported",
        nvml::nvmlGpuP2PStatus_enum_NVML_P2P_STATUS_IOH_TOPOLOGY_NOT_SUPPORTED => {
            "TopologyNotSupported"
        }
        nvml::nvmlGpuP2PStatus_enum_NVML_P2P_STATUS_DISABLED_BY_REGKEY => "DisabledByRegKey",
        nvml::nvmlGpuP2PStatus_enum_NVML_P2P_STATUS_NOT_SUPPORTED => "NotSupported",
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
    use std::collections::BTreeMap;

    use super::*;
    use crate::model::{Windows, XidState};

    fn inputs(xids: &XidState) -> GpuEventInputs<'_> {
        GpuEventInputs {
            xids,
            clock_events: Err(Missing::Pending),
            peers: &[],
            links: Err(Missing::Pending),
            nvlink_fields: Err(Missing::Pending),
            nvlink_rates: Err(Missing::Pending),
            nvlink_errors: Err(Missing::Pending),
            c2c_fields: Err(Missing::Pending),
            platform: Err(Missing::Pending),
            health: Err(Missing::Pending),
            state: Ok(()),
            windows: Windows::default(),
            label_last_xid: true,
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
    fn no_xid_is_reported_as_zero_only_with_a_subscription() {
        let mut history = XidState::default();
        assert_eq!(text(xids_in_window(&inputs(&history))), [" Err(Pending)"]);
        assert_eq!(text(last_xid(&inputs(&history))), ["err_code=0,err_msg=No Error Err(Pending)"]);
        history.subscribed = Ok(());
        assert_eq!(text(xids_in_window(&inputs(&history))), ["window_size_in_ms=300000 Ok(0.0)"]);
        assert_eq!(text(xids_total(&inputs(&history))), Vec::<String>::new());
    }

    #[test]
    fn xids_are_counted_by_code_in_the_window_and_in_total() {
        let history = XidState {
            subscribed: Ok(()),
            last: Some(79),
            counts: BTreeMap::from([(31, 1), (79, 1)]),
            in_window: BTreeMap::from([(79, 1)]),
            ..XidState::default()
        };
        let window = "window_size_in_ms=300000,xid=79 Ok(1.0)";
        assert_eq!(text(xids_in_window(&inputs(&history))), [window]);
        assert_eq!(text(xids_total(&inputs(&history))), ["xid=31 Ok(1.0)", "xid=79 Ok(1.0)"]);
        let last = "err_code=79,err_msg=GPU has fallen off the bus Ok(79.0)";
        assert_eq!(text(last_xid(&inputs(&history))), [last]);
        let plain = GpuEventInputs { label_last_xid: false, ..inputs(&history) };
        assert_eq!(text(last_xid(&plain)), [" Ok(79.0)"]);
    }

    #[test]
    fn reasons_of_newer_drivers_count_from_the_first_on() {
        let history = XidState::default();
        let counts = |seen| ClockEventCounts { in_window: [0; 12], seen, onsets: [0; 12] };
        let events = |seen| {
            let inputs = GpuEventInputs { clock_events: Ok(counts(seen)), ..inputs(&history) };
            text(clock_events_total(&inputs))
        };
        assert_eq!(events(0x1FF).len(), ALWAYS_REPORTED);
        let newer = events(0x2200);
        let ends = ["clock_event=board_limit Ok(0.0)", "clock_event=other Ok(0.0)"];
        assert_eq!(newer.get(ALWAYS_REPORTED..).unwrap(), ends);
    }

    #[test]
    fn each_link_has_a_sample() {
        let history = XidState::default();
        let fields = LinkFields::from([(221, vec![(0, Ok(7.0)), (71, Err(Missing::Unsupported))])]);
        let inputs = GpuEventInputs { nvlink_fields: Ok(&fields), ..inputs(&history) };
        let expected = ["nvlink=0 Ok(7.0)", "nvlink=71 Err(Unsupported)"];
        assert_eq!(text(nvlink_field(&inputs, 221, Ok)), expected);
        assert_eq!(text(nvlink_field(&inputs, 222, Ok)), [" Err(Pending)"]);
        let rates = LinkFields::from([
            (138, vec![(0, Ok(1.0)), (1, Err(Missing::Pending))]),
            (139, vec![(0, Ok(2.0)), (1, Ok(4.0))]),
        ]);
        let inputs = GpuEventInputs { nvlink_rates: Ok(&rates), ..inputs };
        let both = text(nvlink_rate(&inputs, &[138, 139], |rate| rate * 10.0));
        assert_eq!(both, ["nvlink=0 Ok(30.0)", "nvlink=1 Err(Pending)"]);
        assert_eq!(text(nvlink_rate(&inputs, &[140], |rate| rate)), [" Err(Pending)"]);
    }
}
