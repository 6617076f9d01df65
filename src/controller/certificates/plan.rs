//! What the two Secrets must hold, by what they hold and the time: pure but for the keys it makes.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};

use crate::tls::issue::{self, AUTHORITY_LASTS, Authority, CERTIFICATE_LASTS, CLOCKS_DIFFER, Holder, Said, said};
use crate::tls::{Credentials, is_authority};

/// An authority is replaced when less than this is left, well before a certificate that it could still issue would outlive it.
pub const RENEW_AUTHORITY: TimeDelta = TimeDelta::days(180);
/// A certificate is replaced when less than this is left.
pub const RENEW_CERTIFICATE: TimeDelta = TimeDelta::days(30);
/// The kubelet brings agents a changed Secret within two minutes. Until they know a new authority nothing is renewed in its name.
const AGENTS_KNOW: TimeDelta = TimeDelta::hours(1);

const _: () = assert!(RENEW_AUTHORITY.num_days() > CERTIFICATE_LASTS.num_days());
const _: () = assert!(AUTHORITY_LASTS.num_days() > 2 * RENEW_AUTHORITY.num_days());

/// The newest of them; two are enough when nobody meddles.
const MOST_AUTHORITIES: usize = 3;

const AUTHORITIES: &str = "ca.crt";
const AUTHORITY_KEY: &str = "ca.key";
const CERTIFICATE: &str = "tls.crt";
const KEY: &str = "tls.key";

/// The data of a Secret.
pub type Data = BTreeMap<String, Vec<u8>>;

/// Both sides' credentials, and the key of the authority that issues the next ones.
#[derive(Clone, PartialEq, Eq)]
pub struct Certificates {
    /// The newest authority's.
    authority_key: String,
    /// The controller's; its authorities are newest first.
    pub controller: Credentials,
    /// The agents'.
    pub agent: Credentials,
}

/// When what runs out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expiry {
    /// The newest authority.
    pub authority: DateTime<Utc>,
    /// The agents' certificate.
    pub agent: DateTime<Utc>,
    /// The controller's.
    pub controller: DateTime<Utc>,
}

impl Certificates {
    /// What the Secrets hold; what is missing is empty.
    pub fn of(controller: &Data, agent: &Data) -> Self {
        let text = |data: &Data, key| {
            data.get(key).map_or_else(String::new, |text| String::from_utf8_lossy(text).into_owned())
        };
        let credentials = |data: &Data| Credentials {
            authorities: text(data, AUTHORITIES),
            certificate: text(data, CERTIFICATE),
            key: text(data, KEY),
        };
        let authority_key = text(controller, AUTHORITY_KEY);
        Self { authority_key, controller: credentials(controller), agent: credentials(agent) }
    }

    /// The controller's Secret.
    pub fn controller_data(&self) -> Data {
        let mut data = data(&self.controller);
        data.insert(AUTHORITY_KEY.to_owned(), self.authority_key.clone().into_bytes());
        data
    }

    /// The agents' Secret, which has no authority's key.
    pub fn agent_data(&self) -> Data {
        data(&self.agent)
    }

    /// Whether nothing was issued yet, or somebody emptied the controller's Secret.
    pub fn is_empty(&self) -> bool {
        self.controller_data().values().all(Vec::is_empty)
    }

    /// What they are to be now; the same when nothing is due. What cannot be used is made anew.
    pub fn renewed(&self, now: DateTime<Utc>) -> Result<Self, issue::Error> {
        let mut authorities = authorities(&self.controller.authorities, now);
        let known = authorities.iter().find_map(|(certificate, said)| {
            let authority = Authority::from_pem(certificate, &self.authority_key).ok()?;
            (said.not_after - now > RENEW_AUTHORITY).then_some((authority, said.not_before))
        });
        let (authority, since) = if let Some(known) = known {
            known
        } else {
            let authority = Authority::new(now)?;
            let said = said(authority.certificate())?;
            let since = said.not_before;
            authorities.insert(0, (authority.certificate().to_owned(), said));
            authorities.truncate(MOST_AUTHORITIES);
            (authority, since)
        };
        let bundle: String = authorities.iter().map(|(certificate, _)| certificate.as_str()).collect();
        let agents_know = now - since - CLOCKS_DIFFER >= AGENTS_KNOW;
        let renewed = |of: &Credentials, holder| {
            let of = Credentials { authorities: bundle.clone(), ..of.clone() };
            if of.verify(holder, now).is_ok() && !(agents_know && is_due(&of, now)?) {
                return Ok(of);
            }
            let issue::Issued { certificate, key } = authority.issue(holder, now)?;
            Ok::<_, issue::Error>(Credentials { certificate, key, ..of })
        };
        let controller = renewed(&self.controller, Holder::Controller)?;
        let agent = renewed(&self.agent, Holder::Agent)?;
        Ok(Self { authority_key: authority.key(), controller, agent })
    }

    /// When they run out.
    pub fn expiry(&self) -> Result<Expiry, issue::Error> {
        Ok(Expiry {
            authority: said(&self.controller.authorities)?.not_after,
            agent: said(&self.agent.certificate)?.not_after,
            controller: said(&self.controller.certificate)?.not_after,
        })
    }
}

fn data(of: &Credentials) -> Data {
    let pairs = [(AUTHORITIES, &of.authorities), (CERTIFICATE, &of.certificate), (KEY, &of.key)];
    pairs.map(|(key, text)| (key.to_owned(), text.clone().into_bytes())).into()
}

/// Those of a bundle that are valid now, newest first. One from the future was made by a clock that is wrong.
fn authorities(bundle: &str, now: DateTime<Utc>) -> Vec<(String, Said)> {
    const END: &str = "-----END CERTIFICATE-----";
    let each = bundle.split_inclusive(END).filter(|text| text.contains(END)).map(|text| format!("{}\n", text.trim()));
    // One that cannot be believed would keep both sides from believing any.
    let usable = each.filter(|text| is_authority(text));
    let said = usable.filter_map(|text| said(&text).ok().map(|said| (text, said)));
    let mut valid: Vec<_> = said.filter(|(_, said)| said.not_before <= now && said.not_after > now).collect();
    valid.sort_by_key(|(_, said)| std::cmp::Reverse(said.not_before));
    valid
}

fn is_due(of: &Credentials, now: DateTime<Utc>) -> Result<bool, issue::Error> {
    Ok(said(&of.certificate)?.not_after - now <= RENEW_CERTIFICATE)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::time::Duration;

    use axum_server::tls_rustls::RustlsConfig;

    use super::*;
    use crate::tls::host;

    fn nothing() -> Certificates {
        Certificates::of(&Data::new(), &Data::new())
    }

    fn day(day: i64) -> DateTime<Utc> {
        Utc::now() + TimeDelta::days(day)
    }

    /// Whether an agent with these credentials answers a controller with those; certificates must be valid by this machine's clock.
    async fn answers(agent: &Credentials, controller: &Credentials) -> Result<(), String> {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let port = listener.local_addr().unwrap().port();
        let config = RustlsConfig::from_config(std::sync::Arc::new(agent.server().unwrap()));
        let router = axum::Router::new().fallback(async || "here");
        let server = axum_server::from_tcp_rustls(listener, config).unwrap().serve(router.into_make_service());
        let serving = tokio::spawn(server);
        let client = controller.client(Duration::from_secs(5), Duration::from_secs(5)).unwrap();
        let url = format!("https://{}:{port}/", host(Ipv4Addr::LOCALHOST.into()));
        let answered = client.get(url).send().await;
        serving.abort();
        answered.map(drop).map_err(|error| format!("{error:?}"))
    }

    #[test]
    fn an_empty_installation_gets_everything_and_then_nothing_is_due() {
        let made = nothing().renewed(day(0)).unwrap();
        let stored = Certificates::of(&made.controller_data(), &made.agent_data());
        assert!(stored == made, "what is stored is read back");
        assert!(made.renewed(day(59)).unwrap() == made);
        let keys = |data: Data| data.into_keys().collect::<Vec<_>>().join(" ");
        assert_eq!(keys(made.agent_data()), "ca.crt tls.crt tls.key", "agents have no authority's key");
    }

    #[test]
    fn certificates_are_renewed_in_time_and_the_authority_with_all_it_vouched_for() {
        let mut now = nothing().renewed(day(0)).unwrap();
        let mut authorities = vec![now.controller.authorities.clone()];
        for elapsed in (0..2000).step_by(5) {
            let next = now.renewed(day(elapsed)).unwrap();
            let Expiry { authority, agent, controller } = next.expiry().unwrap();
            let left = [authority, agent, controller].map(|date| (date - day(elapsed)).num_days());
            assert!(left[0] >= 179 && left[1] >= 29 && left[2] >= 29, "day {elapsed}: {left:?}");
            assert_eq!(next.agent.authorities, next.controller.authorities);
            if next.controller.authorities != *authorities.last().unwrap() {
                authorities.push(next.controller.authorities.clone());
            }
            now = next;
        }
        // Of 730 days each, replaced 180 before their end; and each is dropped at its end.
        assert!((6..=8).contains(&authorities.len()), "{}", authorities.len());
        assert!(now.controller.authorities.matches("BEGIN").count() <= 2);
    }

    #[tokio::test]
    async fn at_no_moment_of_a_renewal_do_the_sides_refuse_each_other() {
        let before = nothing().renewed(day(-1)).unwrap();
        let after = force_new_authority(&before);
        assert!(after.controller.authorities != before.controller.authorities);
        for (agent, controller) in [(&before, &after), (&after, &after), (&after, &before)] {
            answers(&agent.agent, &controller.controller).await.unwrap();
        }
        assert!(
            after.controller.certificate == before.controller.certificate,
            "agents may not know the new authority yet"
        );
    }

    #[tokio::test]
    async fn what_a_new_authority_issues_is_believed_by_who_knows_it() {
        let old = nothing().renewed(day(-1)).unwrap();
        let lost = Credentials { certificate: String::new(), ..old.agent.clone() };
        let new = force_new_authority(&Certificates { agent: lost, ..old.clone() });
        answers(&new.agent, &new.controller).await.unwrap();
        answers(&new.agent, &old.controller).await.unwrap_err();
        assert!(nothing().is_empty() && !new.is_empty());
    }

    #[test]
    fn what_is_in_order_and_not_ours_is_made_anew() {
        let (made, foreign) = (nothing().renewed(day(0)).unwrap(), nothing().renewed(day(0)).unwrap());
        let (ours, theirs) = (made.controller_data(), foreign.controller_data());
        let with = |key: &str, value: &[u8]| {
            let mut data = ours.clone();
            data.insert(key.to_owned(), value.to_vec());
            Certificates::of(&data, &made.agent_data())
        };
        let early = nothing().renewed(day(2)).unwrap();
        let both = [foreign.controller.authorities.as_bytes(), made.controller.authorities.as_bytes()].concat();
        let broken = [
            with("ca.key", &theirs["ca.key"]),
            with("ca.crt", &theirs["ca.crt"]),
            with("ca.crt", &both),
            Certificates { controller: foreign.controller.clone(), ..made.clone() },
            Certificates { agent: made.controller.clone(), ..made.clone() },
            Certificates { controller: made.agent.clone(), ..made.clone() },
            early,
        ];
        for (number, broken) in broken.iter().enumerate() {
            let mended = broken.renewed(day(0)).unwrap();
            for (side, holder) in [(&mended.agent, Holder::Agent), (&mended.controller, Holder::Controller)] {
                side.verify(holder, day(0)).unwrap_or_else(|error| panic!("{number}: {holder:?}: {error}"));
            }
            assert!(mended.renewed(day(0)).unwrap() == mended, "{number}");
            let signs = Authority::from_pem(&mended.controller.authorities, &mended.authority_key);
            assert!(signs.is_ok() || number == 2, "{number}: the newest authority is the one whose key is kept");
        }
    }

    /// As if the newest authority were near its end.
    fn force_new_authority(of: &Certificates) -> Certificates {
        let without_key = Certificates { authority_key: String::new(), ..of.clone() };
        without_key.renewed(day(0)).unwrap()
    }

    #[tokio::test]
    async fn strangers_are_refused_on_both_sides() {
        let (ours, theirs) = (nothing().renewed(day(0)).unwrap(), nothing().renewed(day(0)).unwrap());
        answers(&ours.agent, &ours.controller).await.unwrap();
        answers(&theirs.agent, &ours.controller).await.unwrap_err();
        let knows_ours = Credentials { authorities: ours.controller.authorities.clone(), ..theirs.controller.clone() };
        answers(&ours.agent, &knows_ours).await.unwrap_err();
        // An agent's certificate is none to ask with: who has one agent's key cannot speak to the others.
        answers(&ours.agent, &ours.agent).await.unwrap_err();
        // Nor is the controller's one to serve with.
        answers(&ours.controller, &ours.controller).await.unwrap_err();
    }

    /// The clocks of the leader that issues, of the next one, and of the machines that check may each be wrong.
    #[tokio::test]
    async fn a_leader_whose_clock_is_wrong_by_ten_minutes_issues_what_is_believed_and_kept() {
        let wrong = TimeDelta::minutes(10);
        for by_clock in [Utc::now() + wrong, Utc::now() - wrong] {
            let made = nothing().renewed(by_clock).unwrap();
            answers(&made.agent, &made.controller).await.unwrap();
            for checked in [Utc::now(), Utc::now() + wrong, Utc::now() - wrong] {
                made.agent.verify(Holder::Agent, checked).unwrap();
                made.controller.verify(Holder::Controller, checked).unwrap();
                assert!(made.renewed(checked).unwrap() == made, "nothing is issued again");
            }
        }
    }

    #[tokio::test]
    async fn what_is_past_is_refused() {
        let past = nothing().renewed(day(-100)).unwrap();
        answers(&past.agent, &past.controller).await.unwrap_err();
    }

    #[test]
    fn what_somebody_broke_is_made_anew() {
        let made = nothing().renewed(day(0)).unwrap();
        let break_one = |secret: usize, key: &str| {
            let mut data = [made.controller_data(), made.agent_data()];
            data[secret].insert(key.to_owned(), b"-----BEGIN NONSENSE-----".to_vec());
            Certificates::of(&data[0], &data[1])
        };
        for (secret, key) in [
            (0, "ca.crt"),
            (0, "ca.key"),
            (0, "tls.crt"),
            (0, "tls.key"),
            (1, "ca.crt"),
            (1, "tls.crt"),
            (1, "tls.key"),
        ] {
            let mended = break_one(secret, key).renewed(day(0)).unwrap();
            assert!(mended.renewed(day(0)).unwrap() == mended, "{secret} {key}");
            mended.agent.server().unwrap();
            mended.controller.server().unwrap();
            assert_eq!(mended.agent.authorities, mended.controller.authorities, "{secret} {key}");
        }
    }

    /// What says the dates is more lenient than what is believed.
    #[test]
    fn an_authority_that_nobody_can_believe_is_dropped() {
        let made = nothing().renewed(day(0)).unwrap();
        let good = &made.controller.authorities;
        let misspelt = good.replacen("BEGIN CERTIFICATE", "BEGIN CERTIFACATE", 1);
        assert!(said(&misspelt).is_ok() && !is_authority(&misspelt));
        for authorities in [misspelt.clone(), format!("{misspelt}{good}"), format!("{good}{misspelt}")] {
            let controller = Credentials { authorities: authorities.clone(), ..made.controller.clone() };
            let mended = Certificates { controller, ..made.clone() }.renewed(day(0)).unwrap();
            assert!(!mended.controller.authorities.contains("CERTIFACATE"), "{authorities}");
            mended.controller.verify(Holder::Controller, day(0)).unwrap();
            assert!(mended.renewed(day(0)).unwrap() == mended, "it is renewed for ever: {authorities}");
        }
    }

    #[test]
    fn keys_are_not_in_debug_output() {
        let made = nothing().renewed(day(0)).unwrap();
        assert!(!format!("{:?}", made.agent).contains("PRIVATE"));
    }
}
