//! Where the framebuffer of one GPU is, part by part.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::conservation::Ledger;
use crate::model::Gpu;
use crate::sample::part::PartSample;
use crate::snapshot::Balanced;

/// The ledgers of a GPU: one, or one for each GPU instance, whose compute instances share its
/// framebuffer.
#[derive(Default)]
pub(super) struct Balances(BTreeMap<Option<u32>, Account>);

#[derive(Default)]
struct Account {
    ledger: Ledger,
    used: Option<u64>,
    spoilt: bool,
}

impl Balances {
    fn account(&mut self, part: &PartSample) -> &mut Account {
        let instance = part.mig.as_deref().map(|mig| mig.gpu_instance);
        self.0.entry(instance).or_default()
    }

    /// Adds what was booked on a part.
    pub(super) fn add(&mut self, part: &PartSample, ledger: Ledger) {
        let account = self.account(part);
        account.ledger.merge(ledger);
        account.used = part.framebuffer.ok().map(|memory| memory.used);
    }

    /// What is on a part is not known.
    pub(super) fn spoil(&mut self, part: &PartSample) {
        self.account(part).spoilt = true;
    }

    /// Those of which everything is known, with what is accounted for by nobody.
    pub(super) fn close(self, gpu: &Gpu) -> impl Iterator<Item = Balanced> {
        let closed = self.0.into_iter().filter(|(_, account)| !account.spoilt);
        closed.filter_map(move |(instance, account)| {
            let balance = account.ledger.balance(account.used?)?;
            Some(Balanced { gpu: gpu.index, uuid: Arc::clone(&gpu.uuid), instance, balance })
        })
    }
}
