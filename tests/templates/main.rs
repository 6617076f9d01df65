//! Templates of receivers, filled in by a process of their own as the controller has it done.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod harmful;

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use volumeviz::controller::notify::filler::{Fault, Filler, MAX_MEMORY, Problem};
use volumeviz::controller::notify::sample;
use volumeviz::controller::notify::template::Templates;
use volumeviz::domain::alert::Scope;
use volumeviz::domain::alert::notification::{Notification, Subject};
use wait4::Wait4;

const PROGRAM: &str = env!("CARGO_BIN_EXE_volumeviz");

fn filler() -> Arc<Filler> {
    Arc::new(Filler::new(PROGRAM))
}

fn body(source: &str) -> Templates {
    Templates { headers: Vec::new(), body: Some(source.to_owned()) }
}

/// What is wrong with them, once the processors had time to find out.
async fn problem(filler: &Arc<Filler>, templates: &Templates) -> Problem {
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        let problem = filler.fill_in(templates, &about("v", 2.0)).await.err().unwrap();
        if problem != Problem::Fault(Fault::Late) || Instant::now() > until {
            return problem;
        }
    }
}

/// About volumes of this name.
fn about(volume: &str, value: f64) -> Notification {
    let mut told = sample::bare();
    told.scope = Scope::Volume;
    told.text = format!("[Warning] example: node-1/{volume}: too big");
    let subject = Subject {
        node: Some("node-1".to_owned()),
        volume: Some(volume.to_owned()),
        value: Some(value),
        message: "too big".to_owned(),
        ..told.subjects.remove(0)
    };
    told.subjects = vec![subject; 100];
    told
}

#[tokio::test]
async fn no_template_does_harm_and_each_is_told_what_it_took() {
    let (filler, ordinary) = (filler(), body("{{ event }}"));
    for (template, words) in harmful::templates() {
        let problem = problem(&filler, &body(&template)).await;
        assert!(words.contains(&problem.to_string().as_str()), "{problem}: {template:.60}");
        let made = filler.fill_in(&ordinary, &about("v", 2.0)).await.ok().unwrap();
        assert_eq!(made.body.as_deref(), Some("Firing"));
    }
}

/// Nor in a header, nor before there is anything to tell.
#[tokio::test]
async fn no_template_does_harm_when_it_is_tried_out() {
    let (deep, words) = harmful::templates().swap_remove(0);
    let headers = Templates { headers: vec![(3, deep)], body: None };
    let problem = filler().check(&headers).await.err().unwrap();
    assert!(words.contains(&problem.to_string().as_str()), "{problem}");
}

/// It would have its turn again and again, and others none.
#[tokio::test]
async fn what_took_too_much_is_not_tried_again_before_it_is_changed() {
    let (filler, told) = (filler(), about("v", 2.0));
    let slow = body(&harmful::templates().swap_remove(5).0);
    let first = problem(&filler, &slow).await;
    assert_eq!(first, Problem::Fault(Fault::Time));
    let started = Instant::now();
    assert_eq!(filler.fill_in(&slow, &told).await.err().as_ref(), Some(&first));
    assert_eq!(filler.check(&slow).await.err(), Some(first));
    assert!(started.elapsed() < Duration::from_secs(5), "nothing was started: {:?}", started.elapsed());
    assert!(filler.fill_in(&body("{{ event }}"), &told).await.is_ok());
}

#[tokio::test]
async fn ordinary_templates_make_what_they_made_here() {
    let ordinary = [
        ("{{ alert }}: {{ event }}", "{{ text }}"),
        ("Bearer t", r#"{"text": {{ text|tojson }}, "all": {{ subjects|tojson }}, "more": {{ subjectsOmitted }}}"#),
        (
            "{{ severity|lower }}",
            "{% for s in subjects %}{{ s.node }}/{{ s.volume or '-' }}: {{ s.value }} {{ s.resolvedAt is none }}\n{% endfor %}",
        ),
        ("x", "{{ nothing }}"),
        ("x", "{{ 'x' * 300000 }}"),
        ("{{ nothing", "{{ text }}"),
        ("{{ 'x' * 5000 }}", "{{ text }}"),
        ("x", "{% for a in range(99999) %}{% for b in range(9) %}{% endfor %}{% endfor %}"),
    ];
    let filler = filler();
    for volume in ["shop-db", "\"\\\r\n{{ alert }}", "\u{1}\u{202e}🌀", &"\u{1}".repeat(512)] {
        for (header, source) in ordinary {
            for value in [2.0, 100.0 / 3.0, 1e300] {
                let templates = Templates { headers: vec![(2, header.to_owned())], body: Some(source.to_owned()) };
                let here = templates.fill_in(&about(volume, value)).map_err(Problem::from);
                let there = filler.fill_in(&templates, &about(volume, value)).await;
                assert!(here == there, "{header}, {source}, of {volume:?}: {:?} and {:?}", here.err(), there.err());
            }
        }
    }
}

/// Many at once wait for each other, and none is lost.
#[tokio::test]
async fn many_have_their_turns() {
    let (filler, template) = (filler(), body("{{ subjects|length }}"));
    let told = about("v", 2.0);
    let made = futures::future::join_all((0..20).map(|_| filler.fill_in(&template, &told))).await;
    assert!(made.iter().all(|made| made.as_ref().is_ok_and(|made| made.body.as_deref() == Some("100"))));
}

/// What it is allowed has to fit beside the controller, so it must be what it really has: what an allocator reserves counts, too.
#[test]
fn its_memory_is_what_it_may_have_and_not_more() {
    let template = body(&harmful::templates().pop().unwrap().0);
    let request = serde_json::to_vec(&(template, about("v", 2.0))).unwrap();
    let mut child = Command::new(PROGRAM)
        .arg("fill-template")
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), &request).unwrap();
    let ended = child.wait4().unwrap();
    assert!(!ended.status.success());
    // Besides, there are its stack, and the pages of the program, which it shares with the controller.
    let (most, allowed) = (ended.rusage.maxrss, MAX_MEMORY + (64 << 20));
    assert!((MAX_MEMORY / 2..allowed).contains(&most), "{} MiB", most >> 20);
}
