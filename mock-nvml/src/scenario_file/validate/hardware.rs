//! Validation of hardware faults and XIDs.

use toml::Spanned;

use crate::{
    models::{Model, Repair},
    scenario::hardware::{
        EccErrors, ErrorCounts, EventTime, HardwareFaults, NvLinkFaults, PerfPolicy, RemappedRows,
        RepairState, RetiredPages, ThrottleWindow, Xid,
    },
    scenario_file::{
        error::{SpannedError, ValidationResult, ensure, suggestion},
        tables::{
            EccTable, GpuTable, NvLinkTable, RemappedTable, RepairTable, RetiredTable,
            ThrottleTable, XidTable,
        },
        validate::{values::ensure_gpu_exists, windows::parse_window},
    },
};

const POLICIES: [(&str, PerfPolicy); 3] = [
    ("sync_boost", PerfPolicy::SyncBoost),
    ("board_limit", PerfPolicy::BoardLimit),
    ("reliability", PerfPolicy::Reliability),
];
const MAX_XIDS: usize = 10_000;

/// The hardware faults in the table of a GPU.
pub(super) fn check(table: &GpuTable, model: &Model) -> ValidationResult<HardwareFaults> {
    let slowed =
        table.slowed.iter().map(|table| slowed(table, model)).collect::<ValidationResult<_>>()?;
    Ok(HardwareFaults {
        ecc: table.ecc.as_ref().map(|table| ecc(table, model)).transpose()?.unwrap_or_default(),
        retired: table
            .retired
            .as_ref()
            .map(|table| retired(table, model))
            .transpose()?
            .unwrap_or_default(),
        remapped: table
            .remapped
            .as_ref()
            .map(|table| remapped(table, model))
            .transpose()?
            .unwrap_or_default(),
        repair: table.repair.as_ref().map(repair).transpose()?.unwrap_or_default(),
        nvlink: table
            .nvlink
            .as_ref()
            .map(|table| nvlink(table, model))
            .transpose()?
            .unwrap_or_default(),
        c2c_errors: table.c2c_errors,
        throttles: slowed,
    })
}

/// The XIDs of the tables, sorted by time.
pub(super) fn xids(tables: &[XidTable], gpus: usize) -> ValidationResult<Vec<Xid>> {
    let mut xids =
        tables.iter().map(|table| xid(table, gpus)).collect::<ValidationResult<Vec<_>>>()?;
    if let Some(table) = tables.get(MAX_XIDS) {
        let text = format!("the scenario has more than {MAX_XIDS} XIDs: remove some");
        return Err(SpannedError::new(table.code.span(), text));
    }
    xids.sort_by(|a, b| a.at.total_cmp(&b.at));
    Ok(xids)
}

fn xid(table: &XidTable, gpus: usize) -> ValidationResult<Xid> {
    ensure_gpu_exists(&table.gpu, gpus)?;
    let (at, code) = (*table.at.get_ref(), *table.code.get_ref());
    ensure(at.is_finite() && at >= 0.0, &table.at, || {
        format!("at = {at} is out of range: write seconds from 0")
    })?;
    ensure(code > 0, &table.code, || "code = 0 is not an XID: write 1 or more".into())?;
    let gpu = *table.gpu.get_ref();
    Ok(Xid { gpu, at, code, gpu_instance: table.gi, compute_instance: table.ci })
}

fn ecc(table: &Spanned<EccTable>, model: &Model) -> ValidationResult<EccErrors> {
    let error = || format!("ecc: the model {} has no ECC counters: remove the key", model.key);
    ensure(model.counts_errors(), table, error)?;
    let spec = table.get_ref();
    let errors = |kind: &str, volatile: u32, aggregate: Option<u32>| {
        let aggregate = aggregate.unwrap_or(volatile);
        let text = || {
            format!(
                "ecc: {kind}_aggregate = {aggregate} is less than {kind}_volatile, which it includes: \
                 write {volatile} or more"
            )
        };
        ensure(aggregate >= volatile, table, text)?;
        Ok(ErrorCounts { volatile, aggregate })
    };
    Ok(EccErrors {
        corrected: errors("sbe", spec.sbe_volatile, spec.sbe_aggregate)?,
        uncorrected: errors("dbe", spec.dbe_volatile, spec.dbe_aggregate)?,
        from: moment("ecc", table, spec.from)?,
    })
}

fn retired(table: &Spanned<RetiredTable>, model: &Model) -> ValidationResult<RetiredPages> {
    let error = || format!("retired: the model {} retires no pages: remove the key", model.key);
    ensure(model.repair == Repair::Pages, table, error)?;
    let RetiredTable { sbe, dbe, pending } = *table.get_ref();
    // The InfoROM holds 64 pages.
    let fits = sbe.saturating_add(dbe) <= 64;
    ensure(fits, table, || "retired: more than 64 pages do not fit: write fewer".into())?;
    Ok(RetiredPages { sbe, dbe, pending })
}

fn remapped(table: &Spanned<RemappedTable>, model: &Model) -> ValidationResult<RemappedRows> {
    let Repair::Rows { banks } = model.repair else {
        let text = format!("remapped: the model {} remaps no rows: remove the key", model.key);
        return Err(SpannedError::new(table.span(), text));
    };
    let RemappedTable { correctable, uncorrectable, pending, failure } = *table.get_ref();
    let fits = correctable.saturating_add(uncorrectable) <= banks;
    ensure(fits, table, || format!("remapped: more rows than the {banks} banks: write fewer"))?;
    Ok(RemappedRows { correctable, uncorrectable, pending, failure })
}

fn repair(table: &Spanned<RepairTable>) -> ValidationResult<RepairState> {
    let &RepairTable { action, unrepairable, channel, tpc, from } = table.get_ref();
    Ok(RepairState { action, unrepairable, channel, tpc, from: moment("repair", table, from)? })
}

fn nvlink(table: &Spanned<NvLinkTable>, model: &Model) -> ValidationResult<NvLinkFaults> {
    let Some(links) = model.nvlinks else {
        let text = format!("nvlink: the model {} has no NVLink: remove the key", model.key);
        return Err(SpannedError::new(table.span(), text));
    };
    let spec = table.get_ref();
    for link in spec.down.iter().chain([&spec.link]) {
        let error =
            || format!("nvlink: link {link} does not exist: write 0 to {}", links.count - 1);
        ensure(*link < links.count, table, error)?;
    }
    Ok(NvLinkFaults {
        down: spec.down.clone(),
        link: spec.link,
        crc_flit: spec.crc_flit,
        crc_data: spec.crc_data,
        replay: spec.replay,
        recovery: spec.recovery,
        symbol: spec.symbol,
        effective: spec.effective,
        packet: spec.packet,
        from: moment("nvlink", table, spec.from)?,
    })
}

fn slowed(table: &ThrottleTable, model: &Model) -> ValidationResult<ThrottleWindow> {
    let word = table.by.get_ref();
    let error =
        || format!("slowed: the model {} has no violation counters: remove the key", model.key);
    ensure(model.violations, &table.by, error)?;
    let known = POLICIES.iter().find(|(name, _)| name == word).map(|(_, policy)| *policy);
    let by = known.ok_or_else(|| {
        let names = || POLICIES.iter().map(|(name, _)| *name);
        let hint = suggestion(word, names());
        let hint = if hint.is_empty() { ":" } else { hint.as_str() };
        let all = names().collect::<Vec<_>>().join(", ");
        let text = format!("slowed: unknown policy \"{word}\"{hint} the policies are {all}");
        SpannedError::new(table.by.span(), text)
    })?;
    Ok(ThrottleWindow { policy: by, during: parse_window(table.from.as_ref(), table.to.as_ref())? })
}

fn moment<T>(key: &str, table: &Spanned<T>, from: Option<f64>) -> ValidationResult<EventTime> {
    let Some(from) = from else { return Ok(EventTime::default()) };
    ensure(from.is_finite(), table, || {
        format!("{key}: from = {from} is out of range: write finite seconds")
    })?;
    Ok(EventTime(from))
}

#[cfg(test)]
mod tests {
    use crate::scenario_file::validate::test_scenario::{GPU, error_of};

    #[test]
    fn errors_in_hardware_tables_have_line_reason_and_remedy() {
        let h100 = "[[gpu]]\nmodel = \"H100\"\n";
        for (text, expected) in [
            (
                format!("{GPU}remapped = {{ correctable = 1 }}\n"),
                "3: remapped: the model T4 remaps no rows: remove the key",
            ),
            (
                format!("{h100}retired = {{ sbe = 1 }}\n"),
                "3: retired: the model H100 retires no pages: remove the key",
            ),
            (
                format!("{GPU}nvlink = {{ down = [0] }}\n"),
                "3: nvlink: the model T4 has no NVLink: remove the key",
            ),
            (
                format!("{h100}nvlink = {{ down = [18] }}\n"),
                "3: nvlink: link 18 does not exist: write 0 to 17",
            ),
            (
                format!("{h100}ecc = {{ dbe_volatile = 2, dbe_aggregate = 1 }}\n"),
                "3: ecc: dbe_aggregate = 1 is less than dbe_volatile, which it includes: write 2 or \
                 more",
            ),
            (
                format!("{h100}ecc = {{ sbe = 2 }}\n"),
                "3: unknown key \"sbe\": the keys here are sbe_volatile, dbe_volatile, sbe_aggregate, \
                 dbe_aggregate, from",
            ),
            (
                "[[gpu]]\nmodel = \"RTX 4090\"\necc = { sbe_volatile = 1 }\n".to_owned(),
                "3: ecc: the model RTX 4090 has no ECC counters: remove the key",
            ),
            (
                format!("{h100}slowed = [{{ by = \"sync-boost\" }}]\n"),
                "3: slowed: unknown policy \"sync-boost\", did you mean \"sync_boost\"? the policies \
                 are sync_boost, board_limit, reliability",
            ),
            (
                format!("{h100}[[xid]]\ngpu = 1\nat = 3\ncode = 79\n"),
                "4: GPU 1 does not exist: the scenario has 1, write 0 to 0",
            ),
            (
                format!("{h100}[[xid]]\ngpu = 0\nat = -3\ncode = 79\n"),
                "5: at = -3 is out of range: write seconds from 0",
            ),
            (
                format!("{h100}[[xid]]\ngpu = 0\nat = 3\ncode = 0\n"),
                "6: code = 0 is not an XID: write 1 or more",
            ),
        ] {
            assert_eq!(error_of(&text), expected, "for\n{text}");
        }
    }
}
