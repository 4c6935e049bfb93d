//! Tests of compile by bundles.
