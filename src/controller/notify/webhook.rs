//! Webhooks: the notification's JSON by POST, with the headers and the body that the Secret has templates for.

use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};

use super::post::Post;
use super::secret::{Destination, Error, HEADERS, Invalid};
use super::template::Filled;
use crate::domain::alert::notification::Notification;
use crate::domain::text::showable;

/// Says which notification it is: receivers that know the header drop repetitions.
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// The POST that tells a notification, by what the destination's templates make of it.
pub fn post(destination: &Destination, notification: &Notification, filled: Filled) -> Result<Post, Error> {
    let mut headers = headers(destination, &filled)?;
    headers.entry(CONTENT_TYPE).or_insert(JSON);
    // A UUID's digits are a header's value.
    if let Ok(id) = HeaderValue::from_str(&notification.id.to_string()) {
        headers.insert(IDEMPOTENCY_KEY, id);
    }
    let body = filled.body.unwrap_or_else(|| serde_json::json!(notification).to_string());
    Ok(Post { target: destination.target.clone(), authorities: destination.authorities.clone(), headers, body })
}

/// The headers that the Secret asks for.
pub(super) fn headers(destination: &Destination, filled: &Filled) -> Result<HeaderMap, Error> {
    let mut headers = HeaderMap::new();
    for (name, made) in destination.headers.iter().zip(&filled.headers) {
        // A volume's name must not be able to end the line.
        let mut value = HeaderValue::from_bytes(showable(made).as_bytes())
            .map_err(|_| destination.invalid(HEADERS, Invalid::NotText))?;
        value.set_sensitive(true);
        headers.insert(name, value);
    }
    Ok(headers)
}

#[cfg(test)]
mod tests {
    use super::super::secret::BODY;
    use super::super::{sample, secret};
    use super::*;

    fn made(entries: &[(&str, &str)], notification: &Notification) -> Result<Post, Error> {
        let destination = secret::tests::destination(entries);
        let filled = destination.templates.fill_in(notification);
        post(&destination, notification, filled.map_err(|mistake| destination.not_filled_in(mistake.into()))?)
    }

    #[test]
    fn without_templates_it_is_the_documented_json_under_its_id() {
        let notification = sample::full();
        let told = made(&[], &notification).unwrap();
        assert_eq!(serde_json::from_str::<Notification>(&told.body).unwrap(), notification);
        assert_eq!(told.headers["content-type"], "application/json");
        assert_eq!(told.headers["idempotency-key"], notification.id.to_string());
    }

    #[test]
    fn headers_and_body_are_filled_in() {
        let notification = Notification { text: "a\r\nHost: b é".to_owned(), ..sample::bare() };
        let entries = [
            (HEADERS, "Content-Type: text/plain\nAuthorization: Bearer t\nTitle: {{ text }}"),
            (BODY, "{{ event }}: {{ text }}"),
        ];
        let told = made(&entries, &notification).unwrap();
        assert_eq!(told.body, "Firing: a\r\nHost: b é");
        assert_eq!(told.headers["content-type"], "text/plain");
        assert_eq!(told.headers["authorization"], "Bearer t");
        assert_eq!(told.headers["title"].as_bytes(), "a\\r\\nHost: b é".as_bytes(), "the line does not end there");
        assert!(!format!("{:?}", told.headers).contains("Bearer"));
    }

    #[test]
    fn names_that_make_too_much_of_a_body_leave_subjects_out_and_not_the_notification() {
        let mut notification = sample::full();
        for subject in &mut notification.subjects {
            subject.volume = Some("\u{1}".repeat(512));
        }
        let told = made(&[(BODY, "[{{ subjects|tojson }}, {{ subjectsOmitted }}]")], &notification).unwrap();
        let told: serde_json::Value = serde_json::from_str(&told.body).unwrap();
        let (listed, omitted) = (told[0].as_array().unwrap().len(), told[1].as_u64().unwrap());
        assert_eq!((listed, omitted), (50, 51));
    }

    #[test]
    fn a_mistake_names_key_and_line() {
        let problem = |entries: &[(&str, &str)]| made(entries, &sample::bare()).err().unwrap().to_string();
        assert_eq!(
            problem(&[(HEADERS, "X: 1\nY: {{ nothing }}")]),
            "Secret ns/s: key headers has a mistake in line 2: undefined value"
        );
        assert_eq!(
            problem(&[(BODY, "{{ nothing }}")]),
            "Secret ns/s: key body has a mistake in line 1: undefined value"
        );
        assert_eq!(
            problem(&[(HEADERS, "X: 1\n\nY: {{ nothing"), (BODY, "{{ nothing }}")]),
            "Secret ns/s: key headers has a mistake in line 3: syntax error"
        );
        assert_eq!(
            problem(&[(BODY, "\n{% nothing %}")]),
            "Secret ns/s: key body has a mistake in line 2: syntax error"
        );
        assert_eq!(problem(&[(BODY, "{{ 'x' * 300000 }}")]), "Secret ns/s: key body makes more than 262144 bytes");
        assert_eq!(problem(&[(HEADERS, "X: {{ 'x' * 5000 }}")]), "Secret ns/s: key headers makes more than 4096 bytes");
    }
}
