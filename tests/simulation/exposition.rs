//! A parser of the exposition format that shares no code with the exporter.

use std::collections::{BTreeMap, BTreeSet};

/// One sample.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Sample {
    pub(crate) name: String,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) value: f64,
    /// Whether the `# TYPE` of the family is `counter`.
    pub(crate) counter: bool,
}

impl Sample {
    /// The value of a label; none if it is empty.
    pub(crate) fn label(&self, key: &str) -> Option<&str> {
        self.labels.get(key).map(String::as_str).filter(|value| !value.is_empty())
    }
}

/// Parses an exposition.
///
/// # Errors
/// The first invalid line, and why it is invalid.
pub(crate) fn parse(exposition: &str) -> Result<Vec<Sample>, String> {
    let (mut samples, mut seen) = (Vec::new(), BTreeSet::new());
    let mut families: BTreeMap<&str, Option<&str>> = BTreeMap::new();
    let mut open = "";
    for line in exposition.lines() {
        let wrong = |why: &str| format!("{why}: {line}");
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, _) = rest.split_once(' ').ok_or_else(|| wrong("no help"))?;
            if families.insert(name, None).is_some() {
                return Err(wrong("a duplicate family"));
            }
            open = name;
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').ok_or_else(|| wrong("no type"))?;
            if name != open || !["gauge", "counter"].contains(&kind) {
                return Err(wrong("a misplaced or unknown type"));
            }
            families.insert(name, Some(kind));
        } else {
            let sample = sample(line).ok_or_else(|| wrong("not a sample"))?;
            if sample.name != open {
                return Err(wrong("a sample outside of its family"));
            }
            let kind = families.get(open).copied().flatten();
            let kind = kind.ok_or_else(|| wrong("a sample without a type"))?;
            if !seen.insert((sample.name.clone(), sample.labels.clone())) {
                return Err(wrong("a duplicate series"));
            }
            samples.push(Sample { counter: kind == "counter", ..sample });
        }
    }
    Ok(samples)
}

fn sample(line: &str) -> Option<Sample> {
    let (series, value) = line.rsplit_once(' ')?;
    let (name, labels) = match series.split_once('{') {
        Some((name, rest)) => (name, labels(rest.strip_suffix('}')?)?),
        None => (series, BTreeMap::new()),
    };
    let legal = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let valid = !name.is_empty() && name.chars().all(legal);
    valid.then_some(())?;
    Some(Sample { name: name.to_owned(), labels, value: value.parse().ok()?, counter: false })
}

fn labels(mut text: &str) -> Option<BTreeMap<String, String>> {
    let mut labels = BTreeMap::new();
    while !text.is_empty() {
        let (key, rest) = text.split_once("=\"")?;
        let mut value = String::new();
        let mut chars = rest.char_indices();
        let end = loop {
            match chars.next()? {
                (at, '"') => break at + 1,
                (_, '\\') => value.push(match chars.next()?.1 {
                    'n' => '\n',
                    c @ ('"' | '\\') => c,
                    _ => return None,
                }),
                (_, c) => value.push(c),
            }
        };
        labels.insert(key.to_owned(), value).is_none().then_some(())?;
        let rest = &rest[end..];
        text = rest.strip_prefix(',').unwrap_or(rest);
        (text.is_empty() || rest.starts_with(',')).then_some(())?;
    }
    Some(labels)
}

#[test]
fn invalid_exposition_is_rejected() {
    let head = "# HELP a b\n# TYPE a gauge\n";
    let good = format!("{head}a{{k=\"v\\\\\\\"\\n,}}\",l=\"\"}} 1.5\na 2\n");
    let samples = parse(&good).unwrap();
    assert_eq!(samples[0].label("k"), Some("v\\\"\n,}"));
    assert_eq!((samples[0].label("l"), samples[1].value), (None, 2.0));
    for (bad, why) in [
        ("a 1\n", "outside of its family"),
        ("# HELP a b\na 1\n", "without a type"),
        ("# HELP a b\n# TYPE a gauge\n# HELP a b\n", "duplicate family"),
        ("# HELP a b\n# TYPE a gauge\na 1\na 1\n", "duplicate series"),
        ("# HELP a b\n# TYPE a gauge\na{k=\"v} 1\n", "not a sample"),
        ("# HELP a b\n# TYPE a gauge\na{k=\"v\"l=\"w\"} 1\n", "not a sample"),
        ("# HELP a b\n# TYPE a gauge\na one\n", "not a sample"),
        ("# HELP a b\n# TYPE a summary\n", "misplaced or unknown type"),
    ] {
        let error = parse(bad).unwrap_err();
        assert!(error.contains(why), "{bad}: {error}");
    }
}
