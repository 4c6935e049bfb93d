//! Label selectors, as Kubernetes writes them.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Selects objects by their labels: those of which everything here is true.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct LabelSelector {
    /// Labels and the values that they have.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub match_labels: BTreeMap<String, String>,
    /// What else is true of labels.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub match_expressions: Vec<LabelExpression>,
}

/// Something that is true of a label.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LabelExpression {
    /// The label.
    pub key: String,
    /// What is true of it.
    pub operator: LabelOperator,
    /// Of `In` and `NotIn`: the values, one at least; of others none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<String>,
}

/// What may be true of a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum LabelOperator {
    /// It has one of the values.
    In,
    /// It has none of the values, or is not there.
    NotIn,
    /// It is there.
    Exists,
    /// It is not there.
    DoesNotExist,
}

impl LabelSelector {
    /// The most that it may ask for.
    pub const MOST: usize = 64;

    /// Is all of it true of these labels?
    #[must_use]
    pub fn selects(&self, labels: &BTreeMap<String, String>) -> bool {
        let has = |(key, value): (&String, &String)| labels.get(key) == Some(value);
        let is_true = |expression: &LabelExpression| {
            let value = labels.get(&expression.key);
            let is_in = value.is_some_and(|value| expression.values.contains(value));
            match expression.operator {
                LabelOperator::In => is_in,
                LabelOperator::NotIn => !is_in,
                LabelOperator::Exists => value.is_some(),
                LabelOperator::DoesNotExist => value.is_none(),
            }
        };
        self.match_labels.iter().all(has) && self.match_expressions.iter().all(is_true)
    }

    /// Can it be used?
    ///
    /// # Errors
    /// The pointer to what cannot, below the selector, and a sentence.
    pub fn check(&self) -> Result<(), (String, &'static str)> {
        if self.match_labels.len() > Self::MOST || self.match_expressions.len() > Self::MOST {
            return Err((String::new(), "64 labels and 64 expressions at most"));
        }
        for (at, expression) in self.match_expressions.iter().enumerate() {
            let values = expression.values.len();
            let fault = match expression.operator {
                LabelOperator::In | LabelOperator::NotIn => {
                    (!(1..=Self::MOST).contains(&values)).then_some("1 to 64 values")
                }
                LabelOperator::Exists | LabelOperator::DoesNotExist => {
                    (values > 0).then_some("this operator takes no values: remove them")
                }
            };
            if let Some(fault) = fault {
                return Err((format!("/matchExpressions/{at}/values"), fault));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selector(text: serde_json::Value) -> LabelSelector {
        serde_json::from_value(text).expect("a selector")
    }

    #[test]
    fn everything_has_to_be_true() {
        let labels = [("tier", "edge"), ("zone", "a")];
        let labels = labels.map(|(key, value)| (key.to_owned(), value.to_owned()));
        let labels = BTreeMap::from(labels);
        for (text, is_selected) in [
            (serde_json::json!({}), true),
            (serde_json::json!({"matchLabels": {"tier": "edge"}}), true),
            (
                serde_json::json!({"matchLabels": {"tier": "edge", "zone": "b"}}),
                false,
            ),
            (
                serde_json::json!({"matchLabels": {"tier": "edge"}, "matchExpressions": [
                    {"key": "zone", "operator": "In", "values": ["b", "a"]},
                    {"key": "zone", "operator": "NotIn", "values": ["b"]},
                    {"key": "rack", "operator": "NotIn", "values": ["b"]},
                    {"key": "zone", "operator": "Exists"},
                    {"key": "rack", "operator": "DoesNotExist"},
                ]}),
                true,
            ),
            (
                serde_json::json!({"matchExpressions": [
                    {"key": "rack", "operator": "In", "values": ["a"]}]}),
                false,
            ),
            (
                serde_json::json!({"matchExpressions": [{"key": "rack", "operator": "Exists"}]}),
                false,
            ),
            (
                serde_json::json!({"matchExpressions": [
                    {"key": "zone", "operator": "DoesNotExist"}]}),
                false,
            ),
        ] {
            let selector = selector(text.clone());
            assert_eq!(selector.selects(&labels), is_selected, "{text}");
            assert_eq!(selector.check(), Ok(()), "{text}");
        }
    }

    #[test]
    fn what_cannot_be_used_is_pointed_at() {
        for (operator, values, at) in [
            ("In", vec![], "/matchExpressions/0/values"),
            ("Exists", vec!["a"], "/matchExpressions/0/values"),
        ] {
            let selector = selector(serde_json::json!({"matchExpressions": [
                {"key": "zone", "operator": operator, "values": values}]}));
            let pointer = selector.check().expect_err("a fault").0;
            assert_eq!(pointer, at);
        }
    }
}
