//! Which requests are passed on.

use axum::http::uri::PathAndQuery;
use axum::http::{HeaderMap, Method, Uri, header};

/// The paths behind the version, each with the only query it may have.
const CALLS: [(&str, Option<&str>); 4] = [
    ("/version", None),
    ("/info", None),
    ("/volumes", None),
    // `size=true` would have dockerd walk every container.
    ("/containers/json", Some("all=true&size=false")),
];

/// What Docker is asked, if the request is, byte for byte, one that an agent makes: nothing is decoded, so nothing can be read in two ways.
pub fn passed_on<'a>(method: &Method, uri: &'a Uri, headers: &HeaderMap) -> Option<&'a PathAndQuery> {
    // What is meant for a proxy of the web names a server.
    let origin_form = uri.scheme().is_none() && uri.authority().is_none();
    let allowed = method == Method::GET && origin_form && has_no_body(headers) && is_call(uri.path(), uri.query());
    uri.path_and_query().filter(|_| allowed)
}

fn has_no_body(headers: &HeaderMap) -> bool {
    !headers.contains_key(header::TRANSFER_ENCODING)
        && !headers.contains_key(header::UPGRADE)
        && headers.get_all(header::CONTENT_LENGTH).iter().all(|length| length == "0")
}

fn is_call(path: &str, query: Option<&str>) -> bool {
    let call = without_version(path).unwrap_or(path);
    CALLS.contains(&(call, query))
}

/// `/v1.47/info` → `/info`; nothing when there is no version before it.
fn without_version(path: &str) -> Option<&str> {
    let version = path.strip_prefix("/v")?;
    let (version, _) = version.split_once('/')?;
    let (major, minor) = version.split_once('.')?;
    let is_number = |text: &str| (1..=4).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    (is_number(major) && is_number(minor)).then(|| &path["/v".len() + version.len()..])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asks(method: &str, uri: &str, headers: &[(header::HeaderName, &str)]) -> bool {
        let headers = headers.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect();
        passed_on(&Method::from_bytes(method.as_bytes()).unwrap(), &uri.parse().unwrap(), &headers).is_some()
    }

    #[test]
    fn what_agents_ask_is_allowed() {
        for path in ["/version", "/info", "/volumes", "/containers/json?all=true&size=false"] {
            assert!(asks("GET", path, &[]), "{path}");
            assert!(asks("GET", &format!("/v1.47{path}"), &[(header::CONTENT_LENGTH, "0")]), "{path}");
        }
    }

    #[test]
    fn nothing_near_it_is() {
        let near = [
            "/",
            "/v1.47",
            "/v1.47/",
            "/v/info",
            "/v1/info",
            "/v1./info",
            "/v.47/info",
            "/v1.47.1/info",
            "/v1.99999/info",
            "/v1.47/v1.47/info",
            "//info",
            "/info/",
            "/info//",
            "/./info",
            "/v1.47/../info",
            "/%69nfo",
            "/v1.47%2finfo",
            "/INFO",
            "/info?",
            "/info?x",
            "/volumes?filters=%7B%7D",
            "/volumes/web",
            "/volumes/prune",
            "/containers/json",
            "/containers/json?all=true",
            "/containers/json?size=true&all=true",
            "/containers/json?all=true&size=true",
            "/containers/json?all=true&size=false&size=true",
            "/containers/x/json",
            "/version;/../exec",
            "http://docker/info",
        ];
        for uri in near {
            assert!(!asks("GET", uri, &[]), "{uri}");
        }
    }

    #[test]
    fn only_get_without_a_body_and_without_an_upgrade_is() {
        for method in ["HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "get", "GETX"] {
            assert!(!asks(method, "/info", &[]), "{method}");
        }
        for (name, value) in
            [(header::CONTENT_LENGTH, "1"), (header::TRANSFER_ENCODING, "chunked"), (header::UPGRADE, "tcp")]
        {
            assert!(!asks("GET", "/info", &[(name.clone(), value)]), "{name}");
        }
        assert!(!asks("GET", "/info", &[(header::CONTENT_LENGTH, "0"), (header::CONTENT_LENGTH, "5")]));
    }
}
