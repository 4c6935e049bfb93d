//! x
#[test] fn d() { for s in 8..=20 { let r = sim::run(&sim::Options::seed(s)); println!("{s} {} {:?}", r.digest, r.violations.iter().map(ToString::to_string).collect::<Vec<_>>()); } }
