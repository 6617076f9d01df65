//! What the controller and an agent say to each other: `POST /v1/jobs`.
//!
//! A post carries no authority and no work: it only tells an agent to claim the ticket from the database. Fields are only ever added.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The path of the agent's endpoint.
pub const PATH: &str = "/v1/jobs";

/// The largest body an agent reads, in bytes.
pub const MAX_BODY_BYTES: usize = 4096;

/// The body of a post.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Offer {
    /// Version of this message: 1.
    pub v: u32,
    /// The job's id, for logs.
    pub job: i64,
    /// The ticket to claim.
    pub ticket: Uuid,
    /// The node the job is for.
    pub node_name: String,
    /// The uid of that node's object.
    #[serde(rename = "nodeUID")]
    pub node_uid: String,
    /// The uid of the pod the offer is meant for: addresses are reused.
    #[serde(rename = "podUID")]
    pub pod_uid: String,
}

/// The body of an answer: 200 claimed, 409 fenced, 421 another pod, 429 busy, 503 with a [`Refusal`], 400 for what is no offer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// `Claimed`, `Fenced`, `WrongPod`, `Busy`, `InvalidOffer` or the name of a [`Refusal`].
    pub reason: String,
    /// One line for people.
    pub message: String,
}

/// Why an agent cannot claim now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Refusal {
    /// The agent cannot reach the database, or the database refuses it.
    DatabaseUnreachable,
    /// The database has no contract this agent speaks.
    SchemaMismatch,
    /// The agent is shutting down.
    Stopping,
}

impl Refusal {
    /// The name in the answer's `reason`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::DatabaseUnreachable => "DatabaseUnreachable",
            Self::SchemaMismatch => "SchemaMismatch",
            Self::Stopping => "Stopping",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As controllers of 0.1.0 post it.
    const OFFER: &str =
        r#"{"v":1,"job":7,"ticket":"00000000-0000-0000-0000-000000000001","nodeName":"n","nodeUID":"u","podUID":"p"}"#;
    /// As agents of 0.1.0 answer.
    const ANSWER: &str = r#"{"reason":"Busy","message":"the agent works on another job"}"#;

    #[test]
    fn what_0_1_0_says_is_understood_and_said_again() {
        let offer: Offer = serde_json::from_str(OFFER).unwrap();
        let answer: Answer = serde_json::from_str(ANSWER).unwrap();
        assert_eq!(serde_json::to_string(&offer).unwrap(), OFFER);
        assert_eq!(serde_json::to_string(&answer).unwrap(), ANSWER);
    }

    /// Fields are only ever added: the next version's messages reach this one while an upgrade is under way.
    #[test]
    fn what_a_later_version_adds_is_ignored() {
        let later = |text: &str| text.replacen('{', r#"{"later":{"x":[1]},"#, 1);
        assert!(serde_json::from_str::<Offer>(&later(OFFER)).is_ok());
        assert!(serde_json::from_str::<Answer>(&later(ANSWER)).is_ok());
    }
}
