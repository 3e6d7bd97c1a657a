//! Validation of the faults of NVML calls.

use std::time::Duration;

use toml::Spanned;

use crate::{
    exported_functions::FUNCTIONS,
    fault::{Effect, InjectedFault, Substitute, lists_processes, takes_gpu},
    return_code::ReturnCode,
    scenario_file::{
        error::{SpannedError, ValidationResult, ensure, suggestion},
        tables::FaultTable,
        validate::{values::ensure_gpu_exists, windows::parse_window},
    },
};

const FIELDS: &str = "nvmlDeviceGetFieldValues";

pub(super) fn check(table: &Spanned<FaultTable>, gpus: usize) -> ValidationResult<InjectedFault> {
    let spec = table.get_ref();
    let function = function(&spec.function)?;
    if let Some(gpu) = &spec.gpu {
        ensure_gpu_exists(gpu, gpus)?;
        if let Some(name) = function {
            let error = || format!("{name} does not concern one GPU: remove gpu");
            ensure(takes_gpu(name), gpu, error)?;
        }
    }
    let fault = InjectedFault {
        function,
        gpu: spec.gpu.as_ref().map(|gpu| *gpu.get_ref()),
        field: spec.field.as_ref().map(|field| *field.get_ref()),
        during: parse_window(spec.from.as_ref(), spec.to.as_ref())?,
        effect: effect(table)?,
    };
    if let Some(field) = &spec.field {
        let error = || format!("field is a key of {FIELDS} only: remove it");
        ensure(function == Some(FIELDS), field, error)?;
        let valid =
            matches!(fault.effect, Effect::Code(_) | Effect::Substitute(Substitute::AllBitsSet));
        let error = || "a fault of a field has code or ones = true: write one of them".into();
        ensure(valid, field, error)?;
    }
    if fault.effect == Effect::Substitute(Substitute::NoRows) {
        let text = "empty is a key of functions that list processes: write such a function, as \
                    nvmlDeviceGetComputeRunningProcesses_v3";
        ensure(function.is_some_and(lists_processes), &spec.function, || text.into())?;
    }
    if fault.effect == Effect::Missing {
        let whole = spec.gpu.is_none() && spec.from.is_none() && spec.to.is_none();
        let text = "a symbol is missing for all GPUs and at all times: remove gpu, from and to";
        ensure(whole, table, || text.into())?;
        let named = function.is_some_and(|name| name != "nvmlInit_v2");
        let text = "no client works without this symbol: write a function other than nvmlInit_v2";
        ensure(named, &spec.function, || text.into())?;
    }
    Ok(fault)
}

fn function(value: &Spanned<String>) -> ValidationResult<Option<&'static str>> {
    if value.get_ref() == "*" {
        return Ok(None);
    }
    symbol(value).map(Some)
}

/// The exported function with this name.
pub(super) fn symbol(value: &Spanned<String>) -> ValidationResult<&'static str> {
    let name = value.get_ref().as_str();
    let known = FUNCTIONS.iter().copied().find(|function| *function == name);
    known.ok_or_else(|| {
        let hint = suggestion(name, FUNCTIONS.iter().copied());
        let hint = if hint.is_empty() { ":" } else { hint.as_str() };
        let remedy = "write a symbol of this library or \"*\"";
        SpannedError::new(value.span(), format!("unknown function \"{name}\"{hint} {remedy}"))
    })
}

fn effect(table: &Spanned<FaultTable>) -> ValidationResult<Effect> {
    let spec = table.get_ref();
    let on = |flag: &Option<Spanned<bool>>| flag.as_ref().is_some_and(|flag| *flag.get_ref());
    let flags = [
        (on(&spec.hang), Effect::Hang),
        (on(&spec.missing), Effect::Missing),
        (on(&spec.ones), Effect::Substitute(Substitute::AllBitsSet)),
        (on(&spec.empty), Effect::Substitute(Substitute::NoRows)),
    ];
    let mut effects: Vec<_> = flags.into_iter().filter(|(on, _)| *on).map(|(_, one)| one).collect();
    if let Some(code) = &spec.code {
        effects.push(self::code(code)?);
    }
    if let Some(number) = spec.value {
        effects.push(Effect::Substitute(Substitute::Number(number)));
    }
    if let Some(delay) = &spec.delay {
        let seconds = *delay.get_ref();
        let error = || format!("delay = {seconds} is out of range: write 0 to 3600 seconds");
        ensure((0.0..=3_600.0).contains(&seconds), delay, error)?;
        effects.push(Effect::Delay(Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)));
    }
    let [effect] = effects[..] else {
        let text = "a fault has exactly one of code, delay, hang = true, missing = true, ones = true, \
                    empty = true, value: write one of them";
        return Err(SpannedError::new(table.span(), text));
    };
    Ok(effect)
}

fn code(value: &Spanned<String>) -> ValidationResult<Effect> {
    let name = value.get_ref();
    ReturnCode::from_name(name).filter(|code| code.0 != 0).map(Effect::Code).ok_or_else(|| {
        let hint = suggestion(name, ReturnCode::names());
        let hint = if hint.is_empty() { ":" } else { hint.as_str() };
        let remedy = "write an nvmlReturn_t without NVML_ERROR_";
        SpannedError::new(value.span(), format!("unknown code \"{name}\"{hint} {remedy}"))
    })
}

#[cfg(test)]
mod tests {
    use crate::scenario_file::validate::test_scenario::{GPU, error_of};

    #[test]
    fn errors_in_fault_tables_have_line_reason_and_remedy() {
        let power = "function = \"nvmlDeviceGetPowerUsage\"\n";
        for (rest, expected) in [
            (
                "function = \"nvmlDeviceGetPowerUsge\"\nhang = true\n".to_owned(),
                "4: unknown function \"nvmlDeviceGetPowerUsge\", did you mean \
                 \"nvmlDeviceGetPowerUsage\"? write a symbol of this library or \"*\"",
            ),
            (
                power.to_owned(),
                "3: a fault has exactly one of code, delay, hang = true, missing = true, ones = \
                 true, empty = true, value: write one of them",
            ),
            (
                format!("{power}hang = true\ndelay = 1\n"),
                "3: a fault has exactly one of code, delay, hang = true, missing = true, ones = \
                 true, empty = true, value: write one of them",
            ),
            (
                format!("{power}code = \"GPU_LOST\"\n"),
                "5: unknown code \"GPU_LOST\", did you mean \"GPU_IS_LOST\"? write an nvmlReturn_t \
                 without NVML_ERROR_",
            ),
            (
                format!("{power}missing = true\nfrom = 2\n"),
                "3: a symbol is missing for all GPUs and at all times: remove gpu, from and to",
            ),
            (
                "function = \"nvmlInit_v2\"\ngpu = 0\nhang = true\n".to_owned(),
                "5: nvmlInit_v2 does not concern one GPU: remove gpu",
            ),
            (
                format!("{power}empty = true\n"),
                "4: empty is a key of functions that list processes: write such a function, as \
                 nvmlDeviceGetComputeRunningProcesses_v3",
            ),
            (
                format!("{power}field = 82\ncode = \"UNKNOWN\"\n"),
                "5: field is a key of nvmlDeviceGetFieldValues only: remove it",
            ),
        ] {
            let text = format!("{GPU}[[fault]]\n{rest}");
            assert_eq!(error_of(&text), expected, "for\n{text}");
        }
    }
}
