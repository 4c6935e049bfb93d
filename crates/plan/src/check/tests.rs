//! Tests of check by manifests.
