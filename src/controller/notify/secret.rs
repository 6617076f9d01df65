//! The Secret that a receiver names: where its notifications go, and what goes with them.
//!
//! Only Secrets of the operator's namespace that are labelled for it are read, so that who may write a VolumeAlert cannot have another one
//! sent away. Nothing said here holds a value of a Secret.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client};
use reqwest::Certificate;
use reqwest::header::HeaderName;

use super::filler::{self, Fault};
use super::guard::{self, Target};
use super::template::{self, Mistake, Templates};

/// The label, and the value it must have.
pub const LABEL: (&str, &str) = ("volumeviz.io/notify", "true");
const READ_TIMEOUT: Duration = Duration::from_secs(2);
/// Of each key, in bytes.
const MAX_VALUE: usize = 65_536;
const MAX_HEADERS: usize = 32;
/// The connection's own, and the one that says which notification it is.
const OWN_HEADERS: [&str; 11] = [
    "connection",
    "content-length",
    "expect",
    "host",
    "idempotency-key",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

const URL: &str = "url";
const AUTHORITIES: &str = "ca.crt";
pub(super) const HEADERS: &str = "headers";
pub(super) const BODY: &str = "body";

/// Where notifications go, and what goes with them.
pub struct Destination {
    /// Whose setting this is.
    pub origin: Origin,
    /// Where to.
    pub target: Target,
    /// Who may vouch for the receiver instead of the system's authorities.
    pub authorities: Option<Vec<Certificate>>,
    /// Names of headers, in the order of the templates of their values.
    pub headers: Vec<HeaderName>,
    /// Of headers and body.
    pub templates: Templates,
}

/// Whose setting a destination is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// A Secret's, by namespace and name.
    Secret(String, String),
    /// The installation's.
    Installation,
}

/// Why what a receiver names cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Error {
    /// Whose setting is at fault.
    pub origin: Origin,
    /// Why.
    pub kind: Kind,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.origin, &self.kind) {
            (Origin::Secret(namespace, name), kind @ (Kind::Invalid(..) | Kind::NotFilledIn(_))) => {
                write!(f, "Secret {namespace}/{name}: {kind}")
            }
            (Origin::Secret(namespace, name), kind) => write!(f, "Secret {namespace}/{name} {kind}"),
            (Origin::Installation, Kind::Invalid(_, problem)) => {
                write!(f, "the Alertmanager URL of this installation {problem}")
            }
            (Origin::Installation, kind) => write!(f, "the Alertmanager URL of this installation {kind}"),
        }
    }
}

/// Why a Secret cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Kind {
    /// There is none.
    #[error("does not exist")]
    Missing,
    /// It is not meant for this.
    #[error("has no label {}={}", LABEL.0, LABEL.1)]
    NotLabelled,
    /// A value is wrong.
    #[error("key {0} {1}")]
    Invalid(&'static str, Invalid),
    /// Its templates take what no template may.
    #[error("filling in its templates {0}")]
    NotFilledIn(Fault),
    /// The API server does not give it.
    #[error("cannot be read: {0}")]
    Unreadable(String),
    /// The API server did not answer.
    #[error("cannot be read: no answer within {0:?}")]
    Late(Duration),
}

/// What is wrong with a value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// Required.
    #[error("is missing")]
    Missing,
    /// Not for this kind of receiver.
    #[error("is for a Webhook only, Alertmanager has its own format")]
    NotForAlertmanager,
    /// Not text.
    #[error("is not UTF-8")]
    NotText,
    /// Too long.
    #[error("is longer than {MAX_VALUE} bytes")]
    TooLong,
    /// The URL.
    #[error("{0}")]
    Url(guard::Problem),
    /// The authorities.
    #[error("has no certificate in PEM")]
    NoCertificate,
    /// Too many headers.
    #[error("has more than {MAX_HEADERS} lines")]
    TooManyHeaders,
    /// A line of the headers.
    #[error("has something other than NAME: VALUE in line {0}")]
    NotHeader(usize),
    /// A header that only we set.
    #[error("has a header in line {0} that cannot be chosen")]
    OwnHeader(usize),
    /// A header twice.
    #[error("has the same header in line {0} as before")]
    SameHeader(usize),
    /// A template.
    #[error("{0}")]
    Template(template::Problem),
}

/// Reads a Secret, and what it says.
pub async fn read(client: &Client, namespace: &str, name: &str) -> Result<Destination, Error> {
    let origin = Origin::Secret(namespace.to_owned(), name.to_owned());
    let error = |kind| Error { origin: origin.clone(), kind };
    let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
    let read = tokio::time::timeout(READ_TIMEOUT, secrets.get_opt(name)).await;
    let secret = match read {
        Err(_) => return Err(error(Kind::Late(READ_TIMEOUT))),
        // What could not be parsed would be quoted.
        Ok(Err(kube::Error::SerdeError(_))) => return Err(error(Kind::Unreadable("it is no Secret".to_owned()))),
        Ok(Err(cause)) => return Err(error(Kind::Unreadable(cause.to_string()))),
        Ok(Ok(None)) => return Err(error(Kind::Missing)),
        Ok(Ok(Some(secret))) => secret,
    };
    parse(&secret, &origin).map_err(error)
}

/// What a Secret says.
pub fn parse(secret: &Secret, origin: &Origin) -> Result<Destination, Kind> {
    let label = secret.metadata.labels.as_ref().and_then(|labels| labels.get(LABEL.0));
    if label.map(String::as_str) != Some(LABEL.1) {
        return Err(Kind::NotLabelled);
    }
    let none = BTreeMap::new();
    let data = secret.data.as_ref().unwrap_or(&none);
    let url = text(data, URL)?.ok_or(Kind::Invalid(URL, Invalid::Missing))?;
    let target = url.trim().parse().map_err(|problem| Kind::Invalid(URL, Invalid::Url(problem)))?;
    let authorities = text(data, AUTHORITIES)?.map(authorities).transpose().map_err(invalid(AUTHORITIES))?;
    let lines = text(data, HEADERS)?.unwrap_or_default();
    let (headers, values) = headers(lines).map_err(invalid(HEADERS))?.into_iter().unzip();
    let templates = Templates { headers: values, body: text(data, BODY)?.map(str::to_owned) };
    Ok(Destination { origin: origin.clone(), target, authorities, headers, templates })
}

fn invalid(key: &'static str) -> impl FnOnce(Invalid) -> Kind {
    move |problem| Kind::Invalid(key, problem)
}

fn text<'a>(data: &'a BTreeMap<String, ByteString>, key: &'static str) -> Result<Option<&'a str>, Kind> {
    let Some(ByteString(bytes)) = data.get(key) else { return Ok(None) };
    if bytes.len() > MAX_VALUE {
        return Err(Kind::Invalid(key, Invalid::TooLong));
    }
    std::str::from_utf8(bytes).map(Some).map_err(|_| Kind::Invalid(key, Invalid::NotText))
}

fn authorities(pem: &str) -> Result<Vec<Certificate>, Invalid> {
    let found = Certificate::from_pem_bundle(pem.as_bytes()).map_err(|_| Invalid::NoCertificate)?;
    if found.is_empty() { Err(Invalid::NoCertificate) } else { Ok(found) }
}

/// The value of a header, with the line that it is in.
type Numbered = (usize, String);

/// Of lines `NAME: VALUE`; empty ones are passed over.
fn headers(lines: &str) -> Result<Vec<(HeaderName, Numbered)>, Invalid> {
    let mut found: Vec<(HeaderName, Numbered)> = Vec::new();
    for (number, line) in (1..).zip(lines.lines()).filter(|(_, line)| !line.trim().is_empty()) {
        let (name, value) = line.split_once(':').ok_or(Invalid::NotHeader(number))?;
        let name: HeaderName = name.trim().parse().map_err(|_| Invalid::NotHeader(number))?;
        if OWN_HEADERS.contains(&name.as_str()) {
            return Err(Invalid::OwnHeader(number));
        }
        if found.iter().any(|(other, _)| *other == name) {
            return Err(Invalid::SameHeader(number));
        }
        found.push((name, (number, value.trim().to_owned())));
        if found.len() > MAX_HEADERS {
            return Err(Invalid::TooManyHeaders);
        }
    }
    Ok(found)
}

impl Destination {
    /// The installation's own.
    pub fn installed(target: Target) -> Self {
        Self {
            origin: Origin::Installation,
            target,
            authorities: None,
            headers: Vec::new(),
            templates: Templates::default(),
        }
    }

    /// Something is wrong with a key.
    pub fn invalid(&self, key: &'static str, problem: Invalid) -> Error {
        Error { origin: self.origin.clone(), kind: Kind::Invalid(key, problem) }
    }

    /// Its templates are not filled in.
    pub fn not_filled_in(&self, problem: filler::Problem) -> Error {
        match problem {
            filler::Problem::Mistake(Mistake::Headers(problem)) => self.invalid(HEADERS, Invalid::Template(problem)),
            filler::Problem::Mistake(Mistake::Body(problem)) => self.invalid(BODY, Invalid::Template(problem)),
            filler::Problem::Fault(fault) => Error { origin: self.origin.clone(), kind: Kind::NotFilledIn(fault) },
        }
    }

    /// Something is wrong with where it leads.
    pub fn misleads(&self, problem: guard::Problem) -> Error {
        self.invalid(URL, Invalid::Url(problem))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// What a Secret ns/s with a good URL and these keys says.
    pub(in super::super) fn destination(entries: &[(&str, &str)]) -> Destination {
        let entries: Vec<_> = [GOOD].iter().chain(entries).copied().collect();
        parse(&secret(&entries), &Origin::Secret("ns".to_owned(), "s".to_owned())).unwrap()
    }

    fn secret(entries: &[(&str, &str)]) -> Secret {
        let data = entries.iter().map(|(key, value)| ((*key).to_owned(), ByteString(value.as_bytes().to_vec())));
        let mut secret = Secret { data: Some(data.collect()), ..Secret::default() };
        secret.metadata.labels = Some([(LABEL.0.to_owned(), LABEL.1.to_owned())].into());
        secret
    }

    fn problem(entries: &[(&str, &str)]) -> Kind {
        parse(&secret(entries), &Origin::Installation).err().unwrap()
    }

    const GOOD: (&str, &str) = (URL, "https://hooks.example.com/x\n");

    #[test]
    fn only_labelled_secrets_are_used() {
        let good = secret(&[GOOD]);
        assert!(parse(&good, &Origin::Installation).is_ok());
        for labels in [None, Some([(LABEL.0.to_owned(), "True".to_owned())].into())] {
            let mut other = good.clone();
            other.metadata.labels = labels;
            assert_eq!(parse(&other, &Origin::Installation).err(), Some(Kind::NotLabelled));
        }
    }

    #[test]
    fn what_is_wrong_is_told_by_key_and_line_and_never_by_value() {
        let many: Vec<_> = (0..=MAX_HEADERS).map(|n| format!("X-{n}: canary")).collect();
        let many = many.join("\n");
        let long = "canary ".repeat(20_000);
        let cases: [(&[(&str, &str)], Kind); 10] = [
            (&[], Kind::Invalid(URL, Invalid::Missing)),
            (&[(URL, "canary")], Kind::Invalid(URL, Invalid::Url(guard::Problem::NotUrl))),
            (&[GOOD, (AUTHORITIES, "canary")], Kind::Invalid(AUTHORITIES, Invalid::NoCertificate)),
            (&[GOOD, (HEADERS, "\ncanary")], Kind::Invalid(HEADERS, Invalid::NotHeader(2))),
            (&[GOOD, (HEADERS, "X canary: x")], Kind::Invalid(HEADERS, Invalid::NotHeader(1))),
            (&[GOOD, (HEADERS, "X: 1\nHost: canary")], Kind::Invalid(HEADERS, Invalid::OwnHeader(2))),
            (&[GOOD, (HEADERS, "content-LENGTH: canary")], Kind::Invalid(HEADERS, Invalid::OwnHeader(1))),
            (&[GOOD, (HEADERS, "X: canary\n\nx: canary")], Kind::Invalid(HEADERS, Invalid::SameHeader(3))),
            (&[GOOD, (HEADERS, &many)], Kind::Invalid(HEADERS, Invalid::TooManyHeaders)),
            (&[GOOD, (HEADERS, &long)], Kind::Invalid(HEADERS, Invalid::TooLong)),
        ];
        for (entries, expected) in cases {
            let found = problem(entries);
            assert_eq!(found, expected);
            assert!(!format!("{found} {found:?}").contains("canary"), "{found}");
        }
        let mut binary = secret(&[GOOD]);
        binary.data.get_or_insert_default().insert(BODY.to_owned(), ByteString(vec![0xff]));
        assert_eq!(parse(&binary, &Origin::Installation).err(), Some(Kind::Invalid(BODY, Invalid::NotText)));
    }
}
