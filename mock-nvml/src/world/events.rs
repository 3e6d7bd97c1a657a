//! Event sets, and the events delivered to each.

use std::collections::HashMap;

use crate::{
    models::Model,
    return_code::{NvmlResult, ReturnCode},
    scenario::{Gpu, Scenario, hardware::Xid},
};

/// `nvmlEventTypeSingleBitEccError`
const CORRECTED: u64 = 0x1;
/// `nvmlEventTypeDoubleBitEccError`
const UNCORRECTED: u64 = 0x2;
/// `nvmlEventTypeXidCriticalError`
const XID: u64 = 0x8;
/// The XID "GPU has fallen off the bus".
const OFF_THE_BUS: u32 = 79;

/// The event types that a model supports (`nvmlEventType…`).
pub(crate) fn supported_event_types(model: &Model) -> u64 {
    if model.counts_errors() { XID | CORRECTED | UNCORRECTED } else { XID }
}

/// An event as it is delivered to a client (`nvmlEventData_t`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DeliveredEvent {
    /// The device handle with which the client registered.
    pub(crate) handle: usize,
    /// `nvmlEventType…`.
    pub(crate) kind: u64,
    /// The number of an XID event, else 0.
    pub(crate) data: u64,
    /// The GPU instance concerned, if any.
    pub(crate) gpu_instance: Option<u32>,
    /// The compute instance concerned, if any.
    pub(crate) compute_instance: Option<u32>,
}

/// The registration of an event set for events of one GPU.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Registration {
    /// The GPU's index.
    pub(crate) gpu: usize,
    /// The device handle with which the client registered.
    pub(crate) handle: usize,
    /// The event types, as a mask.
    pub(crate) types: u64,
    /// World time of the registration: earlier events are not delivered.
    pub(crate) since: f64,
}

/// An event of a GPU, independent of event sets.
#[derive(Clone, Copy, Debug, PartialEq)]
struct GpuEvent {
    kind: u64,
    xid: Xid,
}

/// All event sets by number. Numbers are never reused.
#[derive(Debug, Default)]
pub(crate) struct EventSets {
    sets: HashMap<usize, EventSet>,
    created: usize,
}

#[derive(Debug)]
struct EventSet {
    /// The session in which it was created.
    serial: u32,
    registered: Vec<Registration>,
    /// The events delivered so far.
    delivered: Vec<GpuEvent>,
}

impl EventSets {
    /// Creates a set and returns its number, which is used as the address of an `nvmlEventSet_t`.
    pub(crate) fn create(&mut self, serial: u32) -> usize {
        // Sets of earlier sessions are dropped.
        self.sets.retain(|_, set| set.serial == serial);
        self.created += 1;
        let number = 0x1000 + self.created * 0x10;
        self.sets.insert(number, EventSet { serial, registered: vec![], delivered: vec![] });
        number
    }

    pub(crate) fn free(&mut self, number: usize, serial: u32) -> NvmlResult<()> {
        self.set(number, serial)?;
        self.sets.remove(&number);
        Ok(())
    }

    pub(crate) fn register(
        &mut self,
        number: usize,
        serial: u32,
        registration: Registration,
    ) -> NvmlResult<()> {
        self.set(number, serial)?.registered.push(registration);
        Ok(())
    }

    /// The earliest event up to world time `now` that has not been delivered to the set.
    pub(crate) fn next(
        &mut self,
        number: usize,
        serial: u32,
        scenario: &Scenario,
        now: f64,
    ) -> NvmlResult<Option<DeliveredEvent>> {
        let set = self.set(number, serial)?;
        let mut delivered = set.delivered.clone();
        let mut next = None;
        for event in events_until(scenario, now) {
            let matching = |one: &&Registration| one.matches(event);
            let Some(registration) = set.registered.iter().find(matching) else { continue };
            // Equal events are delivered as often as the scenario lists them.
            if let Some(at) = delivered.iter().position(|other| *other == event) {
                delivered.swap_remove(at);
                continue;
            }
            next = Some((event, registration.handle));
            break;
        }
        Ok(next.map(|(event, handle)| {
            set.delivered.push(event);
            let GpuEvent { kind, xid } = event;
            DeliveredEvent {
                handle,
                kind,
                data: u64::from(xid.code),
                gpu_instance: xid.gpu_instance,
                compute_instance: xid.compute_instance,
            }
        }))
    }

    fn set(&mut self, number: usize, serial: u32) -> NvmlResult<&mut EventSet> {
        let set = self.sets.get_mut(&number).filter(|set| set.serial == serial);
        set.ok_or(ReturnCode::INVALID_ARGUMENT)
    }
}

impl Registration {
    fn matches(&self, event: GpuEvent) -> bool {
        let GpuEvent { kind, xid } = event;
        self.gpu == xid.gpu && self.types & kind != 0 && self.since < xid.at
    }
}

/// All events up to world time `now`, earliest first.
fn events_until(scenario: &Scenario, now: f64) -> Vec<GpuEvent> {
    let xids = scenario.xids.iter().map(|xid| GpuEvent { kind: XID, xid: *xid });
    let mut all: Vec<_> = xids.chain(scenario.gpus.iter().flat_map(implied_events)).collect();
    all.retain(|event| event.xid.at <= now);
    all.sort_by(|a, b| a.xid.at.total_cmp(&b.xid.at));
    all
}

/// The events that follow from the state of a GPU: XID 79 when it is lost, and ECC errors.
fn implied_events(gpu: &Gpu) -> impl Iterator<Item = GpuEvent> {
    let event = |kind, at, code| {
        let xid = Xid { gpu: gpu.index, at, code, gpu_instance: None, compute_instance: None };
        GpuEvent { kind, xid }
    };
    let lost = gpu.lost.iter().map(move |lost| event(XID, lost.from, OFF_THE_BUS));
    let ecc = gpu.hardware.ecc;
    let errors = [(CORRECTED, ecc.corrected), (UNCORRECTED, ecc.uncorrected)];
    let errors = errors.into_iter().filter(|(_, errors)| errors.volatile > 0);
    lost.chain(errors.map(move |(kind, _)| event(kind, ecc.from.0, 0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scenario(rest: &str) -> Scenario {
        Scenario::parse("test", &format!("[[gpu]]\nmodel = \"T4\"\ncount = 2\n{rest}")).unwrap()
    }

    fn xid(gpu: usize, at: f64, code: u32) -> String {
        format!("[[xid]]\ngpu = {gpu}\nat = {at}\ncode = {code}\n")
    }

    fn delivered(events: &mut EventSets, set: usize, scenario: &Scenario, now: f64) -> Vec<u64> {
        let mut all = vec![];
        while let Some(event) = events.next(set, 1, scenario, now).unwrap() {
            all.push(event.data);
        }
        all
    }

    fn registered(events: &mut EventSets, gpu: usize, since: f64) -> usize {
        let set = events.create(1);
        events.register(set, 1, Registration { gpu, handle: 7, types: XID, since }).unwrap();
        set
    }

    #[test]
    fn each_event_is_delivered_once_to_each_registered_set() {
        let text = xid(0, 5.0, 31) + &xid(0, 5.0, 31) + &xid(0, 3.0, 13) + &xid(1, 4.0, 48);
        let scenario = scenario(&text);
        let mut events = EventSets::default();
        let early = registered(&mut events, 0, 0.0);
        let late = registered(&mut events, 0, 3.0);
        assert_eq!(delivered(&mut events, early, &scenario, 4.9), [13]);
        assert_eq!(delivered(&mut events, early, &scenario, 5.0), [31, 31]);
        assert_eq!(delivered(&mut events, early, &scenario, 9.0), [0_u64; 0]);
        assert_eq!(delivered(&mut events, late, &scenario, 9.0), [31, 31]);
    }

    #[test]
    fn changed_scenario_delivers_only_new_events() {
        let mut events = EventSets::default();
        let set = registered(&mut events, 1, 2.0);
        let first = scenario(&xid(1, 4.0, 48));
        assert_eq!(delivered(&mut events, set, &first, 10.0), [48]);
        let second = scenario(&(xid(1, 4.0, 48) + &xid(1, 3.0, 63) + &xid(1, 2.0, 64)));
        assert_eq!(delivered(&mut events, set, &second, 10.0), [63]);
    }

    #[test]
    fn lost_gpu_and_ecc_errors_cause_events() {
        let text = "[[gpu]]\nmodel = \"H100\"\nlost = [{ from = 5 }]\necc = { dbe_volatile = 1, from = 4 }";
        let scenario = Scenario::parse("test", text).unwrap();
        let mut events = EventSets::default();
        let set = events.create(1);
        let types = XID | UNCORRECTED | CORRECTED;
        events.register(set, 1, Registration { gpu: 0, handle: 9, types, since: 0.0 }).unwrap();
        let mut next =
            || events.next(set, 1, &scenario, 6.0).unwrap().map(|one| (one.kind, one.data));
        assert_eq!([next(), next(), next()], [Some((UNCORRECTED, 0)), Some((XID, 79)), None]);
    }

    #[test]
    fn set_is_invalid_after_its_session_and_is_freed_once() {
        let scenario = scenario("");
        let mut events = EventSets::default();
        let set = events.create(1);
        assert_eq!(events.next(set, 2, &scenario, 0.0), Err(ReturnCode::INVALID_ARGUMENT));
        assert_eq!(events.free(set, 2), Err(ReturnCode::INVALID_ARGUMENT));
        assert_eq!(
            (events.free(set, 1), events.free(set, 1)),
            (Ok(()), Err(ReturnCode::INVALID_ARGUMENT))
        );
        let other = events.create(1);
        assert_ne!(other, set);
    }
}
