//! Templates of a webhook's headers and body, in the language of Jinja, over the notification's JSON.
//!
//! Fuel counts instructions and what was written, not what values that share their parts, or hold themselves, cost to write and compare: so
//! whoever fills in templates that are not his own has limits of his own (see [`filler`](super::filler)).

use minijinja::value::Serde;
use minijinja::{AutoEscape, Environment, ErrorKind, UndefinedBehavior, Value};
use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};

use crate::domain::alert::notification::Notification;

/// Work of one rendering: instructions, and 64 bytes of data each. All subjects of a full notification in a table take a tenth of it.
const FUEL: u64 = 200_000;
/// Of what a template makes, in bytes.
const MAX_BODY: usize = 262_144;
const MAX_HEADER: usize = 4096;
/// The name of the body's template.
const BODY: &str = "body";

/// The templates of one Secret, as they are written there.
#[derive(Clone, Default, Serialize, Deserialize)]
pub struct Templates {
    /// Of the values of headers, with their lines.
    pub headers: Vec<(usize, String)>,
    /// Of the body, unless it is the JSON.
    pub body: Option<String>,
}

/// What templates make of a notification.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Filled {
    /// Values of headers, in the order of their templates.
    pub headers: Vec<String>,
    /// If there is a template of it.
    pub body: Option<String>,
}

/// Why a template cannot be used. It never quotes the template, which is part of a Secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum Problem {
    /// Its language, or what it names.
    #[error("has a mistake in line {line}: {what}")]
    At {
        /// From 1.
        line: usize,
        /// Of a closed set.
        what: String,
    },
    /// What it does.
    #[error("does too much in line {line}")]
    TooMuch {
        /// From 1.
        line: usize,
    },
    /// What it makes.
    #[error("makes more than {0} bytes")]
    TooLong(usize),
}

/// A key of the Secret, and what is wrong with its template.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum Mistake {
    /// In a header.
    #[error("headers: {0}")]
    Headers(Problem),
    /// In the body.
    #[error("body: {0}")]
    Body(Problem),
}

impl From<minijinja::Error> for Problem {
    fn from(error: minijinja::Error) -> Self {
        let line = error.line().unwrap_or(1);
        match error.kind() {
            ErrorKind::OutOfFuel => Self::TooMuch { line },
            what => Self::At { line, what: what.to_string() },
        }
    }
}

impl Problem {
    /// Whether less to tell would have been told.
    const fn is_too_much(&self) -> bool {
        matches!(self, Self::TooLong(_) | Self::TooMuch { .. })
    }

    /// The same for a template that is only this line of a key.
    fn in_line(self, line: usize) -> Self {
        match self {
            Self::At { line: _, what } => Self::At { line, what },
            Self::TooMuch { line: _ } => Self::TooMuch { line },
            too_long @ Self::TooLong(_) => too_long,
        }
    }
}

impl Templates {
    /// Whether nothing is to be filled in: all there is to the language begins with a brace.
    pub fn are_plain(&self) -> bool {
        !self.headers.iter().map(|(_, header)| header).chain(&self.body).any(|text| text.contains('{'))
    }

    /// Fills them in.
    pub fn fill_in(&self, notification: &Notification) -> Result<Filled, Mistake> {
        let environment = self.compiled()?;
        let body = self.body.is_some().then(|| body(&environment, notification)).transpose().map_err(Mistake::Body)?;
        let (fields, mut headers) = (fields(notification), Vec::new());
        for (line, _) in &self.headers {
            let made = rendered(&environment, &name_of(*line), &fields, MAX_HEADER);
            headers.push(made.map_err(|problem| Mistake::Headers(problem.in_line(*line)))?);
        }
        Ok(Filled { headers, body })
    }

    fn compiled(&self) -> Result<Environment<'_>, Mistake> {
        let mut environment = environment();
        for (line, header) in &self.headers {
            let added = environment.add_template_owned(name_of(*line), header.as_str());
            added.map_err(|error| Mistake::Headers(Problem::from(error).in_line(*line)))?;
        }
        if let Some(body) = &self.body {
            environment.add_template(BODY, body).map_err(|error| Mistake::Body(error.into()))?;
        }
        Ok(environment)
    }
}

fn environment<'a>() -> Environment<'a> {
    let mut environment = Environment::new();
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    // A name that is written wrongly must be seen, and not be an empty place in what people are told.
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_fuel(Some(FUEL));
    // Without the option to indent, whose spaces no fuel counts.
    environment.add_filter("tojson", |value: Value| {
        serde_json::to_string(&value).map_err(|_| minijinja::Error::from(ErrorKind::BadSerialization))
    });
    environment
}

/// The name of the template of the header in this line.
fn name_of(line: usize) -> String {
    format!("header {line}")
}

/// Of subjects whose names make too much of a body fewer are told: they must not keep the others from being told.
fn body(environment: &Environment, notification: &Notification) -> Result<String, Problem> {
    let mut told = notification.clone();
    loop {
        let count = told.subjects.len();
        match rendered(environment, BODY, &fields(&told), MAX_BODY) {
            Err(problem) if problem.is_too_much() && count > 1 => {
                told.subjects.truncate(count / 2);
                told.subjects_omitted += count - count / 2;
            }
            made => return made,
        }
    }
}

fn rendered(environment: &Environment, name: &str, fields: &Value, most_bytes: usize) -> Result<String, Problem> {
    let text = environment.get_template(name)?.render(fields.clone())?;
    if text.len() > most_bytes { Err(Problem::TooLong(most_bytes)) } else { Ok(text) }
}

/// The fields of a notification as templates see them: those of its JSON, each of them there, absent ones `none`.
fn fields(notification: &Notification) -> Value {
    let mut fields = json!(notification);
    let subjects = fields.get_mut("subjects").and_then(Json::as_array_mut).into_iter().flatten();
    for subject in subjects.filter_map(Json::as_object_mut) {
        for optional in ["node", "volume", "value", "resolvedAt"] {
            subject.entry(optional).or_insert(Json::Null);
        }
    }
    Value::from(Serde(fields))
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;
    use crate::domain::alert::notification::MAX_SUBJECTS;

    fn rendered(source: &str, notification: &Notification) -> Result<String, Mistake> {
        let templates = Templates { headers: Vec::new(), body: Some(source.to_owned()) };
        templates.fill_in(notification).map(|filled| filled.body.unwrap())
    }

    #[test]
    fn fields_are_those_of_the_json() {
        let notification = sample::bare();
        let text = rendered("{{ alert }} {{ severity|lower }} {{ event }} {{ subjects[0].threshold }}", &notification);
        assert_eq!(text.as_deref(), Ok("example warning Firing 1.0"));
        let json =
            rendered(r#"{"t": {{ text|tojson }}}"#, &Notification { text: "a \"b\"\n".to_owned(), ..notification });
        assert_eq!(serde_json::from_str::<Json>(&json.unwrap()).unwrap(), json!({"t": "a \"b\"\n"}));
    }

    #[test]
    fn what_is_absent_is_none_and_what_is_unknown_is_a_mistake() {
        let told =
            rendered("{% for s in subjects %}{{ s.value is none }}{{ s.volume or '-' }}{% endfor %}", &sample::bare());
        assert_eq!(told.as_deref(), Ok("True-"));
        let unknown = rendered("\n{{ allert }}", &sample::bare());
        assert_eq!(unknown, Err(Mistake::Body(Problem::At { line: 2, what: "undefined value".to_owned() })));
    }

    #[test]
    fn no_template_takes_more_than_its_share() {
        for greedy in [
            "{% for a in range(100000) %}{% for b in range(100000) %}x{% endfor %}{% endfor %}",
            "{% set ns = namespace(a='xxxxxxxx') %}{% for i in range(40) %}{% set ns.a = ns.a ~ ns.a %}{% endfor %}",
            "{{ 'x' * 1000000000 }}",
            "{{ subjects|tojson(indent=100000000) }}",
        ] {
            assert!(rendered(greedy, &sample::bare()).is_err(), "{greedy}");
        }
        assert_eq!(rendered("{{ 'x' * 300000 }}", &sample::bare()), Err(Mistake::Body(Problem::TooLong(262_144))));
        let for_ever = "\n{% for a in range(99999) %}{% for b in range(9) %}{% endfor %}{% endfor %}";
        assert_eq!(rendered(for_ever, &sample::bare()), Err(Mistake::Body(Problem::TooMuch { line: 2 })));
    }

    #[test]
    fn what_has_no_brace_is_what_it_makes() {
        for (header, body, are_plain) in [
            ("Bearer t%}0 #}", None, true),
            ("x", Some("text % of it"), true),
            ("{{ alert }}", None, false),
            ("x", Some("{# note #}"), false),
            ("x", Some("{% raw %}{% endraw %}"), false),
        ] {
            let templates = Templates { headers: vec![(1, header.to_owned())], body: body.map(str::to_owned) };
            assert_eq!(templates.are_plain(), are_plain, "{header} {body:?}");
            let filled = templates.fill_in(&sample::bare()).unwrap();
            let unchanged = (filled.headers[0].as_str(), filled.body.as_deref()) == (header, body);
            assert_eq!(unchanged, are_plain, "{header} {body:?}");
        }
    }

    #[test]
    fn a_table_of_all_subjects_fits() {
        let row = "{% for s in subjects %}{{ s.node }}/{{ s.volume }}: {{ s.value|round|int }} of {{ s.threshold }}, {{ s.message }}, {{ s.since }}; {% endfor %}";
        let table = rendered(row, &sample::full()).unwrap();
        assert_eq!(table.matches("; ").count(), MAX_SUBJECTS);
    }

    #[test]
    fn a_mistake_is_told_without_the_template() {
        for source in [
            "{{ canary }}",
            "{{ canary",
            "{% canary %}",
            "{{ text|canary }}",
            "{{ canary() }}",
            "{{ 'canary' + 1 }}",
            "{{ 'canary'.x() }}",
        ] {
            let problem = rendered(source, &sample::bare()).unwrap_err();
            assert!(!format!("{problem} {problem:?}").contains("canary"), "{problem}");
        }
    }
}
