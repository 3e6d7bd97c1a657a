//! Validation of faults.

use toml::Spanned;

use super::{during, gpu_exists};
use crate::{
    abi::FUNCTIONS,
    code::Code,
    fault::{Effect, Fault, concerns_gpu},
    scenario::{
        complaint::{Checked, Flaw, ensure, suggestion},
        duration,
        file::FaultTable,
    },
};

const FIELDS: &str = "nvmlDeviceGetFieldValues";

/// The fault of a table.
pub(super) fn check(table: &Spanned<FaultTable>, gpus: usize) -> Checked<Fault> {
    let said = table.get_ref();
    let function = function(&said.function)?;
    if let Some(gpu) = &said.gpu {
        gpu_exists(gpu, gpus)?;
        if let Some(name) = function {
            let mend = || format!("{name} is not about one GPU: leave out gpu");
            ensure(concerns_gpu(name), gpu, mend)?;
        }
    }
    let fault = Fault {
        function,
        gpu: said.gpu.as_ref().map(|gpu| *gpu.get_ref()),
        field: said.field.as_ref().map(|field| *field.get_ref()),
        during: during(said.from.as_ref(), said.to.as_ref())?,
        effect: effect(table)?,
    };
    if let Some(field) = &said.field {
        let mend = || format!("only {FIELDS} has fields: leave out field");
        ensure(function == Some(FIELDS), field, mend)?;
        let answers = matches!(fault.effect, Effect::Code(_) | Effect::Ones);
        let mend = || "a field answers for itself: give code, or ones = true".into();
        ensure(answers, field, mend)?;
    }
    if fault.effect == Effect::Missing {
        let whole = said.gpu.is_none() && said.from.is_none() && said.to.is_none();
        let text = "a symbol is missing in the whole library at all times: leave out gpu, from, to";
        ensure(whole, table, || text.into())?;
        let named = function.is_some_and(|name| name != "nvmlInit_v2");
        let text = "no client can do without that: name one function that is not nvmlInit_v2";
        ensure(named, &said.function, || text.into())?;
    }
    Ok(fault)
}

fn function(said: &Spanned<String>) -> Checked<Option<&'static str>> {
    let name = said.get_ref().as_str();
    if name == "*" {
        return Ok(None);
    }
    let known = FUNCTIONS.iter().copied().find(|function| *function == name);
    known.map(Some).ok_or_else(|| {
        let near = suggestion(name, FUNCTIONS.iter().copied());
        let near = if near.is_empty() { ":" } else { near.as_str() };
        let mend = "name a symbol of this library, or \"*\"";
        Flaw::new(said.span(), format!("no function \"{name}\"{near} {mend}"))
    })
}

fn effect(table: &Spanned<FaultTable>) -> Checked<Effect> {
    let said = table.get_ref();
    let on = |flag: &Option<Spanned<bool>>| flag.as_ref().is_some_and(|flag| *flag.get_ref());
    match (&said.code, &said.delay, on(&said.hang), on(&said.missing), on(&said.ones)) {
        (Some(code), None, false, false, false) => self::code(code),
        (None, Some(delay), false, false, false) => {
            let seconds = *delay.get_ref();
            let mend = || format!("delay = {seconds}: give 0 to 3600 seconds");
            ensure((0.0..=3_600.0).contains(&seconds), delay, mend)?;
            Ok(Effect::Delay(duration(seconds)))
        }
        (None, None, true, false, false) => Ok(Effect::Hang),
        (None, None, false, true, false) => Ok(Effect::Missing),
        (None, None, false, false, true) => Ok(Effect::Ones),
        _ => {
            let text = "a fault has one of code, delay, hang = true, missing = true, ones = true: \
                        give one";
            Err(Flaw::new(table.span(), text))
        }
    }
}

fn code(said: &Spanned<String>) -> Checked<Effect> {
    let name = said.get_ref();
    Code::from_name(name).filter(|code| code.0 != 0).map(Effect::Code).ok_or_else(|| {
        let near = suggestion(name, Code::names());
        let near = if near.is_empty() { ":" } else { near.as_str() };
        let mend = "name an nvmlReturn_t without NVML_ERROR_";
        Flaw::new(said.span(), format!("no code \"{name}\"{near} {mend}"))
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::{GPU, complaint};

    #[test]
    fn a_mistake_in_a_fault_names_its_line_and_its_mend() {
        let power = "function = \"nvmlDeviceGetPowerUsage\"\n";
        for (rest, said) in [
            (
                "function = \"nvmlDeviceGetPowerUsge\"\nhang = true\n".to_owned(),
                "4: no function \"nvmlDeviceGetPowerUsge\", did you mean \
                 \"nvmlDeviceGetPowerUsage\"? name a symbol of this library, or \"*\"",
            ),
            (
                power.to_owned(),
                "3: a fault has one of code, delay, hang = true, missing = true, ones = true: give \
                 one",
            ),
            (
                format!("{power}hang = true\ndelay = 1\n"),
                "3: a fault has one of code, delay, hang = true, missing = true, ones = true: give \
                 one",
            ),
            (
                format!("{power}code = \"GPU_LOST\"\n"),
                "5: no code \"GPU_LOST\", did you mean \"GPU_IS_LOST\"? name an nvmlReturn_t \
                 without NVML_ERROR_",
            ),
            (
                format!("{power}missing = true\nfrom = 2\n"),
                "3: a symbol is missing in the whole library at all times: leave out gpu, from, to",
            ),
            (
                "function = \"nvmlInit_v2\"\ngpu = 0\nhang = true\n".to_owned(),
                "5: nvmlInit_v2 is not about one GPU: leave out gpu",
            ),
            (
                format!("{power}field = 82\ncode = \"UNKNOWN\"\n"),
                "5: only nvmlDeviceGetFieldValues has fields: leave out field",
            ),
        ] {
            let text = format!("{GPU}[[fault]]\n{rest}");
            assert_eq!(complaint(&text), said, "for\n{text}");
        }
    }
}
