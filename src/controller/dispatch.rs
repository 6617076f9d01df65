//! Offers tickets to agents: `POST /v1/jobs`, over TLS on which both sides prove who they are.
//!
//! What is remembered here is only how often and how long each ticket was offered in vain; the truth about a job is its row. A new
//! leader starts this memory anew, so a node gets at most one more [`UNCLAIMED_FOR`]; the run's deadline bounds it all.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use reqwest::StatusCode;
use tokio::sync::watch;
use tokio::time::Instant;
use uuid::Uuid;

use super::certificates::Channel;
use super::metrics::Metrics;
use crate::domain::dispatch::{Answer, Offer, PATH, Refusal};
use crate::domain::run::JobReason;
use crate::tls;

/// How long a connection to an agent may take.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// An agent claims before it answers, and its claim is bounded by 3 s.
pub const POST_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a ticket is offered in vain before its node is skipped.
pub const UNCLAIMED_FOR: Duration = Duration::from_secs(120);
const FIRST_BACKOFF: Duration = Duration::from_secs(1);
const MAX_BACKOFF: Duration = Duration::from_secs(15);

/// The offers of every active run.
#[derive(Debug, Clone)]
pub struct Dispatcher {
    channel: watch::Receiver<Channel>,
    agent_port: u16,
    /// Jobs that may be under way at a time, over all scans.
    max_running_jobs: usize,
    metrics: Metrics,
    runs: Arc<Mutex<HashMap<i64, HashMap<Uuid, Delivery>>>>,
}

/// What is known of offering one ticket.
#[derive(Debug, Clone)]
struct Delivery {
    /// When it was offered first, whatever was answered.
    offered: Instant,
    first_turn: Instant,
    last_turn: Instant,
    next_turn: Instant,
    in_flight: bool,
    /// Claimed, as far as this process knows: it holds a slot until its job has ended.
    claimed: bool,
    failures: u32,
    problem: Option<Problem>,
}

/// Why a ticket was not claimed at its last turn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The reason shown when the node is skipped for it.
    pub reason: JobReason,
    /// For people.
    pub message: String,
}

/// How offering one ticket stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Standing {
    /// A post is under way: it holds one of the run's slots.
    pub in_flight: bool,
    /// The next turn is not yet due.
    pub backing_off: bool,
    /// Offered in vain for [`UNCLAIMED_FOR`].
    pub overdue: bool,
    /// Turns so far that failed; fewer go first.
    pub failures: u32,
    /// Why the last turn failed.
    pub problem: Option<Problem>,
}

impl Dispatcher {
    /// A dispatcher that reaches agents by `channel`, at their pod's address and this port, and lets at most `max_running_jobs` of them work.
    pub fn new(channel: watch::Receiver<Channel>, agent_port: u16, max_running_jobs: usize, metrics: Metrics) -> Self {
        Self { channel, agent_port, max_running_jobs, metrics, runs: Arc::default() }
    }

    /// Notes which tickets of a run agents work on, as the database tells: a new leader has offered none of them.
    pub fn hold(&self, run: i64, tickets: impl Iterator<Item = Uuid>) {
        for ticket in tickets {
            self.update(run, ticket, |delivery| delivery.claimed = true);
        }
    }

    /// How many more jobs may be dispatched, when the database counts `running` over all scans.
    pub fn free_slots(&self, running: i64) -> usize {
        let running = usize::try_from(running).unwrap_or(0);
        let (held, in_flight) = self.with(|runs| {
            let count = |holds: fn(&Delivery) -> bool| runs.values().flatten().filter(|(_, d)| holds(d)).count();
            (count(|delivery| delivery.claimed || delivery.in_flight), count(|delivery| delivery.in_flight))
        });
        self.max_running_jobs.saturating_sub(held.max(running.saturating_add(in_flight)))
    }

    /// How offering each ticket of a run stands.
    pub fn standing(&self, run: i64) -> HashMap<Uuid, Standing> {
        let now = Instant::now();
        self.with(|runs| {
            let deliveries = runs.get(&run).into_iter().flatten();
            deliveries.map(|(ticket, delivery)| (*ticket, delivery.standing(now))).collect()
        })
    }

    /// Offers a ticket to the agent at `address`, unless another scan's pass took the last slot meanwhile; answers come back through
    /// [`Self::standing`] and the job's row.
    pub fn offer(&self, run: i64, offer: Offer, address: IpAddr) {
        if self.free_slots(0) == 0 {
            return;
        }
        self.update(run, offer.ticket, |delivery| delivery.in_flight = true);
        let dispatcher = self.clone();
        // Bounded by POST_TIMEOUT; what comes of it is in `runs`.
        tokio::spawn(async move {
            let ticket = offer.ticket;
            let outcome = dispatcher.post(&offer, address).await;
            if let Err(failure) = &outcome {
                tracing::debug!(
                    job.id = offer.job,
                    node.name = offer.node_name,
                    "offer not taken: {}",
                    failure.problem.message
                );
            }
            dispatcher.settled(run, ticket, outcome);
        });
    }

    /// Counts a turn for which there is no agent to ask.
    pub fn miss(&self, run: i64, ticket: Uuid, problem: Problem) {
        let failure = Failure { problem, agent_is_well: false };
        self.update(run, ticket, |delivery| delivery.settle(Err(failure)));
    }

    /// Forgets all but these tickets of a run; with none, the run.
    pub fn retain(&self, run: i64, open: &[Uuid]) {
        self.with(|runs| {
            if let Some(deliveries) = runs.get_mut(&run) {
                deliveries.retain(|ticket, _| open.contains(ticket));
            }
            runs.retain(|_, deliveries| !deliveries.is_empty());
        });
    }

    /// Forgets every run but these, however they ended.
    pub fn keep_runs(&self, under_way: &[i64]) {
        self.with(|runs| runs.retain(|run, _| under_way.contains(run)));
    }

    /// Notes the answer to an offer; a run that was forgotten meanwhile stays forgotten.
    fn settled(&self, run: i64, ticket: Uuid, outcome: Result<(), Failure>) {
        self.with(|runs| {
            if let Some(delivery) = runs.get_mut(&run).and_then(|deliveries| deliveries.get_mut(&ticket)) {
                if outcome.is_ok() {
                    self.metrics.dispatched(delivery.offered.elapsed());
                }
                delivery.settle(outcome);
            }
        });
    }

    fn update(&self, run: i64, ticket: Uuid, change: impl FnOnce(&mut Delivery)) {
        self.with(|runs| change(runs.entry(run).or_default().entry(ticket).or_insert_with(Delivery::new)));
    }

    fn with<T>(&self, act: impl FnOnce(&mut HashMap<i64, HashMap<Uuid, Delivery>>) -> T) -> T {
        act(&mut self.runs.lock().unwrap_or_else(PoisonError::into_inner))
    }

    async fn post(&self, offer: &Offer, address: IpAddr) -> Result<(), Failure> {
        let unreachable = |message| Failure::of(JobReason::AgentUnreachable, message);
        let client = self.channel.borrow().clone().map_err(|problem| unreachable(problem.to_string()))?;
        let url = format!("https://{}:{}{PATH}", tls::host(address), self.agent_port);
        let response = client.post(url).json(offer).send().await.map_err(|error| {
            // reqwest's own message ends at the URL; the cause says whether it was refused, unreachable or late.
            let cause = std::error::Error::source(&error).map_or_else(|| error.to_string(), deepest);
            unreachable(format!("the agent at {address} does not answer: {cause}"))
        })?;
        let status = response.status();
        if status == StatusCode::OK {
            return Ok(());
        }
        let answer = response.json::<Answer>().await.ok();
        Err(Failure::from_answer(status, answer))
    }
}

fn deepest(error: &(dyn std::error::Error + 'static)) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

/// A turn that did not end in a claim.
#[derive(Debug)]
struct Failure {
    problem: Problem,
    /// The agent answers and works: waiting for it is bounded by the run's deadline only.
    agent_is_well: bool,
}

impl Failure {
    fn of(reason: JobReason, message: String) -> Self {
        Self { problem: Problem { reason, message }, agent_is_well: false }
    }

    fn from_answer(status: StatusCode, answer: Option<Answer>) -> Self {
        let (name, message) = answer.map_or_else(
            || (String::new(), format!("the agent answered {status} without saying why")),
            |answer| (answer.reason, answer.message),
        );
        let reason = match status {
            StatusCode::TOO_MANY_REQUESTS => JobReason::AgentBusy,
            StatusCode::SERVICE_UNAVAILABLE if name == Refusal::DatabaseUnreachable.as_str() => {
                JobReason::AgentCannotReachDatabase
            }
            StatusCode::SERVICE_UNAVAILABLE if name == Refusal::SchemaMismatch.as_str() => JobReason::SchemaMismatch,
            _ => JobReason::AgentUnreachable,
        };
        Self { problem: Problem { reason, message }, agent_is_well: reason == JobReason::AgentBusy }
    }
}

impl Delivery {
    fn new() -> Self {
        let now = Instant::now();
        Self {
            offered: now,
            first_turn: now,
            last_turn: now,
            next_turn: now,
            in_flight: false,
            claimed: false,
            failures: 0,
            problem: None,
        }
    }

    fn standing(&self, now: Instant) -> Standing {
        Standing {
            in_flight: self.in_flight,
            backing_off: self.next_turn > now,
            // Time in which it had no turn, because others held all slots, says nothing of its agent.
            overdue: self.problem.is_some() && self.last_turn.duration_since(self.first_turn) >= UNCLAIMED_FOR,
            failures: self.failures,
            problem: self.problem.clone(),
        }
    }

    fn settle(&mut self, outcome: Result<(), Failure>) {
        let now = Instant::now();
        self.in_flight = false;
        self.last_turn = now;
        match outcome {
            // Claimed; should the claim be lost again, the next turn comes no sooner than a lease can expire.
            Ok(()) => {
                self.claimed = true;
                self.next_turn = now + MAX_BACKOFF;
            }
            Err(Failure { problem, agent_is_well }) => {
                if agent_is_well {
                    self.first_turn = now;
                }
                let backoff = FIRST_BACKOFF.saturating_mul(1 << self.failures.min(4)).min(MAX_BACKOFF);
                self.next_turn = now + backoff.mul_f64(rand::random_range(0.75..=1.0));
                self.failures = self.failures.saturating_add(1);
                self.problem = Some(problem);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::registry::Registry;

    use super::super::certificates::none_yet;
    use super::*;

    fn answered(status: u16, reason: &str) -> Failure {
        let answer = Answer { reason: reason.to_owned(), message: "why".to_owned() };
        Failure::from_answer(StatusCode::from_u16(status).unwrap(), Some(answer))
    }

    #[test]
    fn each_answer_has_its_reason() {
        let cases = [
            (429, "Busy", JobReason::AgentBusy),
            (503, "DatabaseUnreachable", JobReason::AgentCannotReachDatabase),
            (503, "SchemaMismatch", JobReason::SchemaMismatch),
            (503, "Stopping", JobReason::AgentUnreachable),
            (421, "WrongPod", JobReason::AgentUnreachable),
        ];
        for (status, reason, expected) in cases {
            assert_eq!(answered(status, reason).problem.reason, expected, "{status} {reason}");
        }
    }

    /// Over all runs, whoever dispatched them.
    #[test]
    fn slots_are_held_from_the_offer_to_the_end_of_the_job() {
        let (_sender, channel) = watch::channel(none_yet());
        let dispatcher = Dispatcher::new(channel, 8443, 3, Metrics::register(&mut Registry::default()));
        let tickets: Vec<Uuid> = (1..=3).map(Uuid::from_u128).collect();
        dispatcher.hold(1, tickets[..1].iter().copied());
        dispatcher.update(2, tickets[1], |delivery| delivery.in_flight = true);
        assert_eq!(dispatcher.free_slots(1), 1);
        assert_eq!(dispatcher.free_slots(2), 0, "the database knows of a job that this process does not");
        dispatcher.update(2, tickets[1], |delivery| delivery.settle(Ok(())));
        assert_eq!(dispatcher.free_slots(1), 1, "claimed after the database was asked");
        dispatcher.miss(2, tickets[2], Problem { reason: JobReason::AgentMissing, message: String::new() });
        assert_eq!(dispatcher.free_slots(1), 1);
        dispatcher.keep_runs(&[2]);
        assert_eq!(dispatcher.free_slots(0), 2, "a run that is over holds nothing");
        dispatcher.retain(2, &[]);
        assert_eq!(dispatcher.free_slots(0), 3);
        dispatcher.settled(2, tickets[1], Ok(()));
        assert_eq!(dispatcher.free_slots(0), 3, "an answer that comes late brings no run back");
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_is_overdue_two_minutes_after_its_first_turn() {
        let mut delivery = Delivery::new();
        delivery.settle(Err(answered(503, "DatabaseUnreachable")));
        tokio::time::advance(Duration::from_secs(119)).await;
        delivery.settle(Err(answered(503, "DatabaseUnreachable")));
        assert!(!delivery.standing(Instant::now()).overdue);
        tokio::time::advance(Duration::from_secs(1)).await;
        delivery.settle(Err(answered(503, "DatabaseUnreachable")));
        assert!(delivery.standing(Instant::now()).overdue);
    }

    #[tokio::test(start_paused = true)]
    async fn time_without_a_turn_makes_no_node_overdue() {
        let mut delivery = Delivery::new();
        delivery.settle(Err(answered(503, "Stopping")));
        tokio::time::advance(UNCLAIMED_FOR * 5).await;
        assert!(!delivery.standing(Instant::now()).overdue);
    }

    #[tokio::test(start_paused = true)]
    async fn a_busy_agent_is_waited_for() {
        let mut delivery = Delivery::new();
        tokio::time::advance(UNCLAIMED_FOR * 2).await;
        delivery.settle(Err(answered(429, "Busy")));
        assert!(!delivery.standing(Instant::now()).overdue);
    }

    #[tokio::test(start_paused = true)]
    async fn failed_turns_back_off_between_one_and_fifteen_seconds() {
        let mut delivery = Delivery::new();
        for _ in 0..40 {
            delivery.settle(Err(answered(503, "DatabaseUnreachable")));
            let wait = delivery.next_turn - Instant::now();
            assert!(wait >= FIRST_BACKOFF.mul_f64(0.75) && wait <= MAX_BACKOFF, "{wait:?}");
        }
    }
}
