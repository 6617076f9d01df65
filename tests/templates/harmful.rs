//! Templates within every count of instructions, and what is told of each.

const LONG: &[&str] = &["took more than 1 s of processor time"];
const BIG: &[&str] = &["took more than 128 MiB of memory"];
/// One or the other, as fast as the machine is.
const MUCH: &[&str] = &[LONG[0], BIG[0]];
const DEEP: &[&str] = &["went too deep for the stack"];

/// Each with the words of which one is said.
pub(crate) fn templates() -> Vec<(String, &'static [&'static str])> {
    let nested = "{% set n=namespace(a=[1]) %}{% for i in range(20000) %}{% set n.a=[n.a] %}{% endfor %}{{ n.a }}";
    vec![
        ("{% set n=namespace(a=1) %}{% set n.a=n %}{{ n }}".to_owned(), DEEP),
        (nested.to_owned(), DEEP),
        (doubled('a', 30) + "{{ a }}", MUCH),
        (doubled('a', 30) + "{{ a|tojson }}", MUCH),
        (doubled('a', 30) + "{{ a ~ '' }}", MUCH),
        (doubled('a', 40) + &doubled('b', 40) + "{{ a == b }}", LONG),
        ("{{ [['x'*9000]*9000]*9000 }}".to_owned(), MUCH),
        ("{{ (['x'*9000]*99999)|join|length }}".to_owned(), BIG),
    ]
}

/// A list that has itself before in it twice, and so on.
fn doubled(name: char, times: usize) -> String {
    format!("{{% set {name}=[1,1] %}}") + &format!("{{% set {name}=[{name},{name}] %}}").repeat(times)
}
