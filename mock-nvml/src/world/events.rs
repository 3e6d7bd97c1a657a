//! Sets of events, and what each of them has heard.

use std::collections::HashMap;

use crate::{
    code::{Answer, Code},
    models::Model,
    scenario::{Gpu, Scenario, hardware::Xid},
};

/// `nvmlEventTypeSingleBitEccError`
const CORRECTED: u64 = 0x1;
/// `nvmlEventTypeDoubleBitEccError`
const UNCORRECTED: u64 = 0x2;
/// `nvmlEventTypeXidCriticalError`
const XID: u64 = 0x8;
/// The XID of a GPU that has fallen off the bus.
const OFF_THE_BUS: u32 = 79;

/// The types of events that a board tells of.
pub(crate) fn supported(model: &Model) -> u64 {
    if model.counts_errors() { XID | CORRECTED | UNCORRECTED } else { XID }
}

/// An event as a client hears of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Event {
    /// The handle with which the client registered.
    pub(crate) handle: usize,
    /// Its type.
    pub(crate) kind: u64,
    /// The XID of an XID, else 0.
    pub(crate) data: u64,
    /// GPU instance, if it is about one.
    pub(crate) gpu_instance: Option<u32>,
    /// Compute instance, if it is about one.
    pub(crate) compute_instance: Option<u32>,
}

/// What a set hears of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Registration {
    /// The GPU's index.
    pub(crate) gpu: usize,
    /// The handle with which the client registered.
    pub(crate) handle: usize,
    /// The types of events.
    pub(crate) types: u64,
    /// World time of the registration: what was before is not told.
    pub(crate) since: f64,
}

/// Something that happens to a GPU.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Happening {
    kind: u64,
    xid: Xid,
}

/// All sets. Their numbers are never given twice.
#[derive(Debug, Default)]
pub(crate) struct Events {
    sets: HashMap<usize, Set>,
    given: usize,
}

#[derive(Debug)]
struct Set {
    /// The session in which it was created.
    serial: u32,
    registered: Vec<Registration>,
    /// What has been told.
    told: Vec<Happening>,
}

impl Events {
    /// The number of a new set. It is used as an address, so it looks like one.
    pub(crate) fn create(&mut self, serial: u32) -> usize {
        // A set dies with its session.
        self.sets.retain(|_, set| set.serial == serial);
        self.given += 1;
        let number = 0x1000 + self.given * 0x10;
        self.sets.insert(number, Set { serial, registered: vec![], told: vec![] });
        number
    }

    /// Forgets a set.
    pub(crate) fn free(&mut self, number: usize, serial: u32) -> Answer<()> {
        self.set(number, serial)?;
        self.sets.remove(&number);
        Ok(())
    }

    /// Has a set hear of something more.
    pub(crate) fn register(
        &mut self,
        number: usize,
        serial: u32,
        what: Registration,
    ) -> Answer<()> {
        self.set(number, serial)?.registered.push(what);
        Ok(())
    }

    /// The earliest event up to world time `now` that the set has not heard of.
    pub(crate) fn next(
        &mut self,
        number: usize,
        serial: u32,
        scenario: &Scenario,
        now: f64,
    ) -> Answer<Option<Event>> {
        let set = self.set(number, serial)?;
        let mut open = set.told.clone();
        let mut heard = None;
        for happening in happenings(scenario, now) {
            let for_it = |one: &&Registration| one.hears(happening);
            let Some(registration) = set.registered.iter().find(for_it) else { continue };
            // As often as a scenario says the same, so often it is told.
            if let Some(at) = open.iter().position(|told| *told == happening) {
                open.swap_remove(at);
                continue;
            }
            heard = Some((happening, registration.handle));
            break;
        }
        Ok(heard.map(|(happening, handle)| {
            set.told.push(happening);
            let Happening { kind, xid } = happening;
            Event {
                handle,
                kind,
                data: u64::from(xid.code),
                gpu_instance: xid.gpu_instance,
                compute_instance: xid.compute_instance,
            }
        }))
    }

    fn set(&mut self, number: usize, serial: u32) -> Answer<&mut Set> {
        let set = self.sets.get_mut(&number).filter(|set| set.serial == serial);
        set.ok_or(Code::INVALID_ARGUMENT)
    }
}

impl Registration {
    fn hears(&self, happening: Happening) -> bool {
        let Happening { kind, xid } = happening;
        self.gpu == xid.gpu && self.types & kind != 0 && self.since < xid.at
    }
}

/// What has happened up to world time `now`, earliest first.
fn happenings(scenario: &Scenario, now: f64) -> Vec<Happening> {
    let told = scenario.xids.iter().map(|xid| Happening { kind: XID, xid: *xid });
    let mut all: Vec<_> = told.chain(scenario.gpus.iter().flat_map(by_itself)).collect();
    all.retain(|happening| happening.xid.at <= now);
    all.sort_by(|a, b| a.xid.at.total_cmp(&b.xid.at));
    all
}

/// What a GPU reports without a word in the scenario: that it is lost, and memory errors.
fn by_itself(gpu: &Gpu) -> impl Iterator<Item = Happening> {
    let happening = |kind, at, code| {
        let xid = Xid { gpu: gpu.index, at, code, gpu_instance: None, compute_instance: None };
        Happening { kind, xid }
    };
    let lost = gpu.lost.iter().map(move |lost| happening(XID, lost.from, OFF_THE_BUS));
    let ecc = gpu.hardware.ecc;
    let errors = [(CORRECTED, ecc.corrected), (UNCORRECTED, ecc.uncorrected)];
    let errors = errors.into_iter().filter(|(_, errors)| errors.volatile > 0);
    lost.chain(errors.map(move |(kind, _)| happening(kind, ecc.from.0, 0)))
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

    fn heard(events: &mut Events, set: usize, scenario: &Scenario, now: f64) -> Vec<u64> {
        let mut all = vec![];
        while let Some(event) = events.next(set, 1, scenario, now).unwrap() {
            all.push(event.data);
        }
        all
    }

    fn registered(events: &mut Events, gpu: usize, since: f64) -> usize {
        let set = events.create(1);
        events.register(set, 1, Registration { gpu, handle: 7, types: XID, since }).unwrap();
        set
    }

    #[test]
    fn each_event_is_told_once_to_each_set_that_waits_for_it() {
        let text = xid(0, 5.0, 31) + &xid(0, 5.0, 31) + &xid(0, 3.0, 13) + &xid(1, 4.0, 48);
        let scenario = scenario(&text);
        let mut events = Events::default();
        let early = registered(&mut events, 0, 0.0);
        let late = registered(&mut events, 0, 3.0);
        assert_eq!(heard(&mut events, early, &scenario, 4.9), [13]);
        assert_eq!(heard(&mut events, early, &scenario, 5.0), [31, 31]);
        assert_eq!(heard(&mut events, early, &scenario, 9.0), [0_u64; 0]);
        assert_eq!(heard(&mut events, late, &scenario, 9.0), [31, 31]);
    }

    #[test]
    fn a_rewritten_scenario_adds_what_was_not_told() {
        let mut events = Events::default();
        let set = registered(&mut events, 1, 2.0);
        let first = scenario(&xid(1, 4.0, 48));
        assert_eq!(heard(&mut events, set, &first, 10.0), [48]);
        let second = scenario(&(xid(1, 4.0, 48) + &xid(1, 3.0, 63) + &xid(1, 2.0, 64)));
        assert_eq!(heard(&mut events, set, &second, 10.0), [63]);
    }

    #[test]
    fn a_lost_gpu_and_memory_errors_report_themselves() {
        let text = "[[gpu]]\nmodel = \"H100\"\nlost = [{ from = 5 }]\necc = { dbe_volatile = 1, from = 4 }";
        let scenario = Scenario::parse("test", text).unwrap();
        let mut events = Events::default();
        let set = events.create(1);
        let types = XID | UNCORRECTED | CORRECTED;
        events.register(set, 1, Registration { gpu: 0, handle: 9, types, since: 0.0 }).unwrap();
        let mut next =
            || events.next(set, 1, &scenario, 6.0).unwrap().map(|one| (one.kind, one.data));
        assert_eq!([next(), next(), next()], [Some((UNCORRECTED, 0)), Some((XID, 79)), None]);
    }

    #[test]
    fn a_set_dies_with_its_session_and_is_freed_once() {
        let scenario = scenario("");
        let mut events = Events::default();
        let set = events.create(1);
        assert_eq!(events.next(set, 2, &scenario, 0.0), Err(Code::INVALID_ARGUMENT));
        assert_eq!(events.free(set, 2), Err(Code::INVALID_ARGUMENT));
        assert_eq!(
            (events.free(set, 1), events.free(set, 1)),
            (Ok(()), Err(Code::INVALID_ARGUMENT))
        );
        let other = events.create(1);
        assert_ne!(other, set);
    }
}
