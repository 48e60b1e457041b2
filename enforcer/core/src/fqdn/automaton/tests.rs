//! The automaton against [`Pattern::matches`], and the sizes it promises.

use std::collections::BTreeSet;

use enforcer_common::policy::{HOST_BIT, NAME_BIT};
use proptest::prelude::*;

use super::{TooManyStates, compile};
use crate::fqdn::Pattern;

fn patterns(texts: &[&str]) -> BTreeSet<Pattern> {
    texts.iter().map(|text| text.parse().expect("a pattern")).collect()
}

/// Labels over a small alphabet, so that patterns and names meet often.
fn label() -> impl Strategy<Value = String> {
    prop_oneof![4 => "[ab]{1,3}", 1 => "[a-c]{1,2}-?[a-c0]", 1 => Just("com".to_owned())]
}

fn name() -> impl Strategy<Value = String> {
    prop::collection::vec(label(), 1..5).prop_map(|labels| labels.join("."))
}

fn pattern() -> impl Strategy<Value = Pattern> {
    let starred = prop_oneof![
        3 => label(),
        1 => Just("*".to_owned()),
        1 => "[ab]{0,2}\\*[ab]{0,2}",
        1 => "[ab]?\\*[ab]\\*[ab]?"
    ];
    let texts = prop::collection::vec(starred, 1..5).prop_map(|labels| labels.join("."));
    texts.prop_filter_map("a pattern", |text| text.parse().ok())
}

/// A name that fits a pattern: every asterisk replaced.
fn fitting(pattern: &Pattern, filler: &str) -> String {
    pattern.as_str().replace('*', filler)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn a_class_holds_exactly_the_patterns_that_match(
        patterns in prop::collection::btree_set(pattern(), 0..8),
        mut names in prop::collection::vec(name(), 1..12),
        filler in "[ab]{1,2}",
    ) {
        names.extend(patterns.iter().map(|pattern| fitting(pattern, &filler)));
        names.extend(names.clone().iter().map(|name| format!("{filler}.{name}")));
        let compiled = compile(&patterns, 1 << 14).expect("few patterns fit");
        for name in names {
            let expected: Vec<&str> =
                patterns.iter().filter(|pattern| pattern.matches(&name)).map(Pattern::as_str).collect();
            let class = compiled.automaton.class_of(&name);
            let found = compiled.patterns.get(&class).cloned().unwrap_or_default();
            prop_assert_eq!(&found, &expected, "{}", name);
            prop_assert_eq!(class == 0, expected.is_empty());
        }
    }
}

#[test]
fn classes_are_numbered_by_what_they_stand_for() {
    let few = compile(&patterns(&["*.example.com", "api.example.com"]), 1 << 14).expect("fits");
    let more =
        compile(&patterns(&["*.example.com", "api.example.com", "zzz.org", "*.org"]), 1 << 14).expect("fits");
    for name in ["api.example.com", "www.example.com"] {
        assert_eq!(few.automaton.class_of(name), more.automaton.class_of(name));
    }
    assert_eq!(few.patterns.len(), 2);
    assert!(few.patterns.keys().all(|class| class & NAME_BIT != 0 && class & HOST_BIT == 0));
}

#[test]
fn case_and_trailing_dot_do_not_count() {
    let names = compile(&patterns(&["Example.com"]), 1 << 14).expect("fits");
    assert_ne!(names.automaton.class_of("EXAMPLE.com."), 0);
    assert_eq!(names.automaton.class_of("example.com.."), 0);
}

#[test]
fn no_pattern_needs_two_states() {
    let names = compile(&BTreeSet::new(), 2).expect("fits");
    assert_eq!((names.automaton.rows.len(), names.automaton.class_of("a.com")), (2, 0));
}

#[test]
fn too_many_states_are_refused_with_the_number_of_patterns() {
    let set = patterns(&["example.com", "example.org"]);
    let error = compile(&set, 16).expect_err("they need 24 states");
    assert_eq!(error, TooManyStates { patterns: 2, capacity: 16 });
    assert!(compile(&set, 24).is_ok() && compile(&set, 23).is_err());
}

/// Ten thousand patterns as a large node might have: services of many teams, whole domains, globs.
fn ten_thousand() -> BTreeSet<Pattern> {
    let words = ["api", "auth", "mail", "cdn", "static", "search", "pay", "img", "db", "hooks"];
    let text = |number: usize| {
        let (word, team, zone) = (words[number % 10], number / 10 % 100, number / 1000);
        let ending = ["example.com", "example.org", "corp.example.net"][zone % 3];
        match number % 20 {
            18 => format!("*.t{team}.z{zone}.{ending}"),
            19 => format!("{word}-*.t{team}.z{zone}.{ending}"),
            _ => format!("{word}{}.t{team}.z{zone}.{ending}", number % 7),
        }
    };
    (0..10_000).map(|number| text(number).parse().expect("a pattern")).collect()
}

#[test]
fn ten_thousand_patterns_fit() {
    let set = ten_thousand();
    assert_eq!(set.len(), 10_000);
    let names = compile(&set, enforcer_common::abi::capacity::NAME_STATES as usize).expect("they fit");
    for pattern in set.iter().step_by(97) {
        let name = fitting(pattern, "a");
        let class = names.automaton.class_of(&name);
        let expected: Vec<&str> =
            set.iter().filter(|other| other.matches(&name)).map(Pattern::as_str).collect();
        assert_eq!(names.patterns[&class], expected, "{name}");
    }
}
