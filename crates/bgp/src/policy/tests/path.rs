use std::ops::RangeInclusive;

use base::Rng;

use super::as_path;
use crate::policy::{AsPathRegex, AsPathRegexError, AsnSet, path};

fn regex(text: &str) -> AsPathRegex {
    text.parse()
        .unwrap_or_else(|error| panic!("{text}: {error}"))
}

#[test]
fn expressions_find_what_they_say() {
    for (text, path, expect) in [
        ("", "", true),
        ("", "1 2", true),
        ("^$", "", true),
        ("^$", "1", false),
        ("2", "1 2 3", true),
        ("2", "12 22", false),
        ("_2_", "1 2 3", true),
        ("^1", "1 2", true),
        ("^2", "1 2", false),
        ("2$", "1 2", true),
        ("1$", "1 2", false),
        ("^1 .*$", "1", true),
        ("^1 .* 4$", "1 2 3 4", true),
        ("^1 . 4$", "1 2 3 4", false),
        ("^1 .{2} 4$", "1 2 3 4", true),
        ("^1 .{1,2} 4$", "1 3 4", true),
        ("^1 .{3,} 4$", "1 2 3 4", false),
        ("^(1 2)+ 3$", "1 2 1 2 3", true),
        ("^(1 2)+ 3$", "1 2 1 3", false),
        ("^1+2?3*$", "1 1 3 3", true),
        ("^1+ 2? 3*$", "1 1 2 2", false),
        ("2 3|5", "1 5", true),
        ("^(2|1) 5$", "1 5", true),
        ("^$|^5", "5 1", true),
        ("(^|3) 5", "3 5", true),
        ("(^|3) 5", "1 5", false),
        ("^[10-20 30]+$", "10 15 30", true),
        ("^[10-20 30]+$", "10 25", false),
        ("^[^10-20]+$", "9 21 4294967295", true),
        ("^[^10-20]+$", "9 20", false),
        ("^1 [2-3] .$", "1 {2 9} {5 6}", true),
        ("^1 9 5$", "1 {2 9} {5 6}", true),
        ("2 9", "1 {2 9}", false),
        ("^1 2$", "(7 8) 1 2", true),
        ("7", "(7) 1", false),
        ("4200000000", "4200000000", true),
    ] {
        let found = regex(text).matches(&as_path(path));
        assert_eq!(found, expect, "{text:?} on {path:?}");
    }
    assert_eq!(regex("^1 [2-3]").to_string(), "^1 [2-3]");
}

#[test]
fn what_is_no_expression_says_where() {
    for (text, at, expected) in [
        ("(1", 2, "`)`"),
        ("1)", 1, "an AS number, a group or an operator"),
        ("*", 0, "an AS number, a group or an operator"),
        ("1**", 2, "an AS number, a group or an operator"),
        ("1{2}{2}", 4, "an AS number, a group or an operator"),
        ("1 x", 2, "an AS number, a group or an operator"),
        ("1{2", 3, "`}`"),
        ("1{,2}", 2, "a number"),
        (
            "1{3,2}",
            6,
            "a greatest number not below the least, before this",
        ),
        ("[1", 2, "a number"),
        ("[]", 2, "an AS number in `[]`, before this"),
        ("[3-1]", 4, "a range from low to high, before this"),
        ("4294967296", 0, "a number of at most 32 bits"),
    ] {
        let error = text.parse::<AsPathRegex>().expect_err(text);
        assert_eq!(error, AsPathRegexError::Syntax { at, expected }, "{text}");
    }
    for text in [
        "1{513}",
        "(1{32}){17}",
        "((((((){99}){99}){99}){99}){99}){99}",
    ] {
        assert_eq!(text.parse::<AsPathRegex>(), Err(AsPathRegexError::TooLong));
    }
    let deep = ["(".repeat(40), ")".repeat(40)].concat();
    assert_eq!(deep.parse::<AsPathRegex>(), Err(AsPathRegexError::TooDeep));
    assert!("(1{32}){16}".parse::<AsPathRegex>().is_ok());
}

#[test]
fn what_kills_backtracking_is_quick() {
    // Exponential for a backtracker: many ways to divide a long path, and none that ends in 2.
    let path = as_path(&["1"; 255].join(" ")).repeat(8);
    assert!(!regex("^(1* 1*)* 2$").matches(&path));
    assert!(regex("^(1*)* 1{200}$").matches(&path));
    assert!(!regex("^(1|1 1|1 1 1)* 2").matches(&path));
}

#[test]
fn foreign_octets_and_text_never_panic() {
    let mut rng = Rng::new(3);
    let letters = b"0123456789 .[]()^$*+?{},|-_x";
    let mut good = 0;
    for _ in 0..20_000 {
        let text: Vec<u8> = (0..rng.below(12))
            .map(|_| letters[usize::try_from(rng.below(28)).expect("small")])
            .collect();
        let octets: Vec<u8> = (0..rng.below(40))
            .map(|_| rng.next_u64().to_le_bytes()[0] % 8)
            .collect();
        if let Ok(regex) = String::from_utf8(text)
            .expect("ASCII")
            .parse::<AsPathRegex>()
        {
            good += 1;
            let _ = regex.matches(&octets);
        }
        let _ = (
            path::origin(&octets),
            path::neighbor(&octets),
            path::length(&octets),
        );
    }
    assert!(good > 500, "{good}");
}

#[test]
fn the_ends_and_the_length_of_a_path() {
    for (text, neighbor, origin, length) in [
        ("", None, None, 0),
        ("1", Some(1), Some(1), 1),
        ("1 2 3", Some(1), Some(3), 3),
        ("1 2 {3 4}", Some(1), None, 3),
        ("{3 4} 5", None, Some(5), 2),
        ("(7 8) 1 2", Some(1), Some(2), 2),
    ] {
        let path = as_path(text);
        assert_eq!(path::neighbor(&path), neighbor, "{text}");
        assert_eq!(path::origin(&path), origin, "{text}");
        assert_eq!(path::length(&path), length, "{text}");
    }
    let asns: AsnSet = [5..=9, 1..=2, 3..=4, RangeInclusive::new(20, 10), 30..=30]
        .into_iter()
        .collect();
    let joined: AsnSet = [1..=9, 30..=30].into_iter().collect();
    assert_eq!(asns, joined);
    assert!(path::contains(&as_path("40 {41 7}"), &asns));
    assert!(!path::contains(&as_path("40 41 (7)"), &asns));
    assert!(AsnSet::default().is_empty() && !AsnSet::default().contains(0));
}
