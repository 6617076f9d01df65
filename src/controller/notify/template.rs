//! Templates of a webhook's headers and body, in the language of Jinja, over the notification's JSON.

use minijinja::value::Serde;
use minijinja::{AutoEscape, Environment, ErrorKind, UndefinedBehavior, Value};
use serde_json::{Value as Json, json};

use crate::domain::alert::notification::Notification;

/// Work of one rendering: instructions, and 64 bytes of data each. All subjects of a full notification in a table take a tenth of it.
const FUEL: u64 = 200_000;

/// Why a template cannot be used. It never quotes the template, which is part of a Secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// Its language, or what it names.
    #[error("has a mistake in line {line}: {what}")]
    At {
        /// From 1.
        line: usize,
        /// Of a closed set.
        what: ErrorKind,
    },
    /// What it makes.
    #[error("makes more than {0} bytes")]
    TooLong(usize),
}

impl From<minijinja::Error> for Problem {
    fn from(error: minijinja::Error) -> Self {
        Self::At { line: error.line().unwrap_or(1), what: error.kind() }
    }
}

impl Problem {
    /// Whether less to tell would have been told.
    pub fn is_too_much(&self) -> bool {
        matches!(self, Self::TooLong(_) | Self::At { what: ErrorKind::OutOfFuel, .. })
    }

    /// The same for a template that is only this line of a key.
    pub fn in_line(self, line: usize) -> Self {
        match self {
            Self::At { line: _, what } => Self::At { line, what },
            too_long @ Self::TooLong(_) => too_long,
        }
    }
}

/// The templates of one Secret, by name.
pub struct Templates(Environment<'static>);

impl Templates {
    /// None yet.
    pub fn new() -> Self {
        let mut environment = Environment::new();
        environment.set_auto_escape_callback(|_| AutoEscape::None);
        // A name that is written wrongly must be seen, and not be an empty place in what people are told.
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        environment.set_fuel(Some(FUEL));
        // Without the option to indent, whose spaces no fuel counts.
        environment.add_filter("tojson", |value: Value| {
            serde_json::to_string(&value).map_err(|_| minijinja::Error::from(ErrorKind::BadSerialization))
        });
        Self(environment)
    }

    /// Adds one.
    pub fn add(&mut self, name: &str, source: String) -> Result<(), Problem> {
        self.0.add_template_owned(name.to_owned(), source).map_err(Problem::from)
    }

    /// Fills one in.
    pub fn render(&self, name: &str, fields: &Fields, most_bytes: usize) -> Result<String, Problem> {
        let text = self.0.get_template(name)?.render(fields.0.clone())?;
        if text.len() > most_bytes { Err(Problem::TooLong(most_bytes)) } else { Ok(text) }
    }
}

/// The fields of a notification as templates see them: those of its JSON, each of them there, absent ones `none`.
pub struct Fields(Value);

impl From<&Notification> for Fields {
    fn from(notification: &Notification) -> Self {
        let mut fields = json!(notification);
        let subjects = fields.get_mut("subjects").and_then(Json::as_array_mut).into_iter().flatten();
        for subject in subjects.filter_map(Json::as_object_mut) {
            for optional in ["node", "volume", "value", "resolvedAt"] {
                subject.entry(optional).or_insert(Json::Null);
            }
        }
        Self(Value::from(Serde(fields)))
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;
    use crate::domain::alert::notification::MAX_SUBJECTS;

    fn rendered(source: &str, notification: &Notification) -> Result<String, Problem> {
        let mut templates = Templates::new();
        templates.add("body", source.to_owned())?;
        templates.render("body", &Fields::from(notification), 4096)
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
        assert_eq!(unknown, Err(Problem::At { line: 2, what: ErrorKind::UndefinedError }));
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
        assert_eq!(rendered("{{ 'x' * 5000 }}", &sample::bare()), Err(Problem::TooLong(4096)));
    }

    #[test]
    fn a_table_of_all_subjects_fits() {
        let full = sample::full();
        let row = "{% for s in subjects %}{{ s.node }}/{{ s.volume }}: {{ s.value|round|int }} of {{ s.threshold }}, {{ s.message }}, {{ s.since }}; {% endfor %}";
        let mut templates = Templates::new();
        templates.add("body", row.to_owned()).unwrap();
        let table = templates.render("body", &Fields::from(&full), 1 << 20).unwrap();
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
