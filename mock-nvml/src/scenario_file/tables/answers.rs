//! The TOML form of recorded answers.

use std::collections::BTreeMap;

use toml::{Spanned, Value as Toml};

use crate::{
    recording::{Answer, Answers, Recording, Value},
    return_code::ReturnCode,
    scenario_file::error::{SpannedError, ValidationResult},
};

/// By target and function.
pub(in crate::scenario_file) type AnswerTables = BTreeMap<String, BTreeMap<String, Spanned<Toml>>>;

/// The recording of the tables `[answers.…]`; none without them.
pub(in crate::scenario_file) fn recording(
    tables: &AnswerTables,
) -> ValidationResult<Option<Recording>> {
    let mut targets = BTreeMap::new();
    for (target, table) in tables {
        let mut answers = Answers::new();
        for (key, value) in table {
            answers.insert(key.clone(), answer(value)?);
        }
        targets.insert(target.clone(), answers);
    }
    Ok((!targets.is_empty()).then_some(Recording { targets }))
}

fn answer(toml: &Spanned<Toml>) -> ValidationResult<Answer> {
    let answer = match toml.get_ref() {
        Toml::Boolean(true) => Some(Answer::Values(Vec::new())),
        Toml::Array(items) => list(items),
        Toml::Table(table) => failure(table),
        other @ (Toml::String(_)
        | Toml::Integer(_)
        | Toml::Float(_)
        | Toml::Boolean(_)
        | Toml::Datetime(_)) => value(other).map(|value| Answer::Values(vec![value])),
    };
    answer.ok_or_else(|| {
        let text = "not an answer of a driver: write true, a number, a text, an array of them, an array of \
                    arrays of whole numbers, { error = \"NOT_SUPPORTED\" } or { hang = true }";
        SpannedError::new(toml.span(), text)
    })
}

fn list(items: &[Toml]) -> Option<Answer> {
    let rows = items.iter().map(|row| row.as_array()?.iter().map(Toml::as_integer).collect());
    if let Some(rows) = rows.collect::<Option<Vec<Vec<i64>>>>() {
        return Some(Answer::Rows(rows));
    }
    items.iter().map(value).collect::<Option<Vec<_>>>().map(Answer::Values)
}

fn failure(table: &toml::Table) -> Option<Answer> {
    match (table.len(), table.get("error"), table.get("hang")) {
        (1, Some(Toml::String(name)), None) => {
            ReturnCode::from_name(name).map(|code| Answer::Error(code.0))
        }
        (1, Some(Toml::Integer(code)), None) => u32::try_from(*code).ok().map(Answer::Error),
        (1, None, Some(Toml::Boolean(true))) => Some(Answer::Hang),
        _ => None,
    }
}

fn value(toml: &Toml) -> Option<Value> {
    match toml {
        Toml::Integer(number) => Some(Value::Number(*number)),
        Toml::Float(number) => Some(Value::Float(*number)),
        Toml::String(text) => Some(Value::Text(text.clone())),
        Toml::Boolean(_) | Toml::Datetime(_) | Toml::Array(_) | Toml::Table(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::Scenario;

    fn recorded(text: &str) -> Recording {
        let scenario = Scenario::parse("test", text).unwrap();
        Recording::clone(&scenario.recording.unwrap())
    }

    #[test]
    fn recording_is_the_same_when_it_is_read_again() {
        let answers = [
            ("true", Answer::Values(vec![])),
            ("number", Answer::Values(vec![Value::Number(-1)])),
            ("a text", Answer::Values(vec![Value::Text("a \"b\"\u{1}".into())])),
            ("gpm 1", Answer::Values(vec![Value::Float(2.0)])),
            ("many", Answer::Values(vec![Value::Number(1), Value::Text("x".into())])),
            ("rows", Answer::Rows(vec![vec![1, 2], vec![3, 4]])),
            ("empty", Answer::Rows(vec![])),
            ("error", Answer::Error(3)),
            ("unknown error", Answer::Error(77)),
            ("hang", Answer::Hang),
        ];
        let answers = answers.map(|(key, answer)| (key.to_owned(), answer));
        let targets = [("gpu 0".to_owned(), answers.into_iter().collect())].into();
        let recording = Recording { targets };
        assert_eq!(recorded(&recording.to_toml()), recording);
    }

    #[test]
    fn invalid_answers_are_refused_with_their_line() {
        for answer in ["false", "{ error = \"NO_SUCH\" }", "{ hang = false }", "[1, [2]]", "{}"] {
            let error =
                Scenario::parse("test", &format!("[answers.node]\nnvmlInit_v2 = {answer}\n"));
            let error = error.unwrap_err().to_string();
            assert!(error.starts_with("2: not an answer of a driver"), "{answer}: {error}");
        }
        let text = "[[gpu]]\nmodel = \"T4\"\n[answers.node]\nnvmlInit_v2 = true\n";
        let error = Scenario::parse("test", text).unwrap_err().to_string();
        assert!(error.contains("remove the [[gpu]] table"), "{error}");
    }

    #[test]
    fn missing_functions_of_a_recording_are_those_that_it_names() {
        let text = "[driver]\nversion = \"470.1\"\nmissing = [\"nvmlDeviceGetName\"]\n";
        let missing = |text: &str| {
            let scenario = Scenario::parse("test", text).unwrap();
            scenario.faults.iter().filter_map(|fault| fault.function).collect::<Vec<_>>()
        };
        let answers = "[answers.node]\nnvmlInit_v2 = true\n";
        assert_eq!(missing(&format!("{text}{answers}")), ["nvmlDeviceGetName"]);
        let of_model = missing(&format!("{text}[[gpu]]\nmodel = \"T4\"\n"));
        assert!(of_model.len() > 5 && of_model.contains(&"nvmlDeviceGetName"), "{of_model:?}");
        let text = "[driver]\nmissing = [\"nvmlX\"]\n[[gpu]]\nmodel = \"T4\"\n";
        let error = Scenario::parse("test", text).unwrap_err();
        assert!(error.to_string().contains("nvmlX"), "{error}");
    }
}
