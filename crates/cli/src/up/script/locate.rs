//! Where in a text something stands.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// One step on the way to a value.
#[derive(Clone, Copy, Debug)]
pub(super) enum At<'a> {
    Key(&'a str),
    Index(usize),
}

/// The line, from 1, of the value at the end of a way, or of as much of the way as there is.
pub(super) fn line(text: &str, way: &[At<'_>]) -> usize {
    let found = Seek(way).deserialize(serde_yaml_ng::Deserializer::from_str(text));
    let place = found.err().and_then(|error| error.location());
    match (place, way) {
        (Some(place), _) => place.line(),
        (None, [way @ .., _]) => line(text, way),
        (None, []) => 1,
    }
}

/// Goes there and fails, since a failure knows its place.
struct Seek<'a>(&'a [At<'a>]);

impl<'de> DeserializeSeed<'de> for Seek<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seek<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("nothing")
    }

    // Whatever is not named here fails too: nothing is what is expected.
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let [At::Key(wanted), rest @ ..] = self.0 else {
            return Err(A::Error::custom("here"));
        };
        while let Some(key) = map.next_key::<String>()? {
            if key == *wanted {
                map.next_value_seed(Seek(rest))?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let [At::Index(wanted), rest @ ..] = self.0 else {
            return Err(A::Error::custom("here"));
        };
        for _ in 0..*wanted {
            if list.next_element::<IgnoredAny>()?.is_none() {
                return Ok(());
            }
        }
        list.next_element_seed(Seek(rest))?;
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_found() {
        let text = "about: x\nsteps:\n- wait: 1s\n- name: a\n  lab:\n  - cut a-b\n  - heal a-b\n- expect: { failed: 0 }\n";
        for (way, wanted) in [
            (&[][..], 1),
            (&[At::Key("steps"), At::Index(0)], 3),
            (&[At::Key("steps"), At::Index(1), At::Key("name")], 4),
            (
                &[At::Key("steps"), At::Index(1), At::Key("lab"), At::Index(1)],
                7,
            ),
            (&[At::Key("steps"), At::Index(2), At::Key("expect")], 8),
            (&[At::Key("steps"), At::Index(2), At::Key("absent")], 8),
        ] {
            assert_eq!(line(text, way), wanted, "{way:?}");
        }
    }
}
