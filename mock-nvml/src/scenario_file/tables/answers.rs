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
