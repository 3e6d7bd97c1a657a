//! Validation of hardware faults and XIDs.

use toml::Spanned;

use crate::{
    models::{Model, Repair},
    scenario::hardware::{
        C2cFaults, EccErrors, ErrorCounts, EventTime, FabricFault, HardwareFaults, NvLinkFaults,
        PerfPolicy, RemappedRows, RepairState, RetiredPages, ThrottleWindow, Xid,
    },
    scenario_file::{
        error::{SpannedError, ValidationResult, ensure, suggestion},
        tables::{
            C2cTable, EccTable, GpuTable, NvLinkTable, RemappedTable, RepairTable, RetiredTable,
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
const FABRICS: [(&str, FabricFault); 3] = [
    ("registering", FabricFault::Registering),
    ("failed", FabricFault::Failed),
    ("degraded", FabricFault::Degraded),
];
const MAX_XIDS: usize = 10_000;
/// NVML has metrics of so many NVLinks.
const MAX_LINKS: u32 = 72;

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
        c2c: table.c2c.as_ref().map(|table| c2c(table, model)).transpose()?.unwrap_or_default(),
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
    let &RepairTable { action, unrepairable, channel, tpc, sram, from } = table.get_ref();
    let from = moment("repair", table, from)?;
    Ok(RepairState { action, unrepairable, channel, tpc, sram, from })
}

fn nvlink(table: &Spanned<NvLinkTable>, model: &Model) -> ValidationResult<NvLinkFaults> {
    let Some(links) = model.nvlinks else {
        let text = format!("nvlink: the model {} has no NVLink: remove the key", model.key);
        return Err(SpannedError::new(table.span(), text));
    };
    let spec = table.get_ref();
    let count = spec.count.as_ref().map(|count| *count.get_ref());
    if let Some(count) = &spec.count {
        let error =
            || format!("nvlink: count = {} is out of range: write 1 to 72", count.get_ref());
        ensure((1..=MAX_LINKS).contains(count.get_ref()), count, error)?;
    }
    ensure_links_exist(
        "nvlink",
        table,
        &[&spec.down[..], &[spec.link]].concat(),
        count.unwrap_or(links.count),
    )?;
    Ok(NvLinkFaults {
        down: spec.down.clone(),
        link: spec.link,
        crc_flit: spec.crc_flit,
        crc_data: spec.crc_data,
        replay: spec.replay,
        recovery: spec.recovery,
        ecc: spec.ecc,
        symbol: spec.symbol,
        effective: spec.effective,
        packet: spec.packet,
        fabric: spec.fabric.as_ref().map_or(Ok(FabricFault::None), fabric)?,
        count,
        from: moment("nvlink", table, spec.from)?,
    })
}

fn c2c(table: &Spanned<C2cTable>, model: &Model) -> ValidationResult<C2cFaults> {
    let links = model.extras.c2c_links;
    let error = || format!("c2c: the model {} has no C2C link: remove the key", model.key);
    ensure(links > 0, table, error)?;
    let C2cTable { errors, down, from } = table.get_ref();
    ensure_links_exist("c2c", table, down, links)?;
    Ok(C2cFaults { errors: *errors, down: down.clone(), from: moment("c2c", table, *from)? })
}

fn ensure_links_exist<T>(
    key: &str,
    table: &Spanned<T>,
    links: &[u32],
    count: u32,
) -> ValidationResult<()> {
    let missing = links.iter().find(|link| **link >= count);
    let error = || {
        let link = missing.copied().unwrap_or_default();
        format!("{key}: link {link} does not exist: write 0 to {}", count - 1)
    };
    ensure(missing.is_none(), table, error)
}

fn fabric(word: &Spanned<String>) -> ValidationResult<FabricFault> {
    known_word("nvlink", "fabric", word, &FABRICS)
}

/// The value of a word.
fn known_word<T: Copy>(
    key: &str,
    what: &str,
    word: &Spanned<String>,
    known: &[(&str, T)],
) -> ValidationResult<T> {
    let text = word.get_ref();
    let found = known.iter().find(|(name, _)| name == text).map(|(_, value)| *value);
    found.ok_or_else(|| {
        let names = || known.iter().map(|(name, _)| *name);
        let hint = suggestion(text, names());
        let hint = if hint.is_empty() { ":" } else { hint.as_str() };
        let all = names().collect::<Vec<_>>().join(", ");
        let plural = if what.ends_with('y') { "policies" } else { "states of a fabric" };
        SpannedError::new(
            word.span(),
            format!("{key}: unknown {what} \"{text}\"{hint} the {plural} are {all}"),
        )
    })
}

fn slowed(table: &ThrottleTable, model: &Model) -> ValidationResult<ThrottleWindow> {
    let error =
        || format!("slowed: the model {} has no violation counters: remove the key", model.key);
    ensure(model.violations, &table.by, error)?;
    let by = known_word("slowed", "policy", &table.by, &POLICIES)?;
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
