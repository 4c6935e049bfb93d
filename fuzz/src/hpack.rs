//! HPACK: the proxy's codec, whose files are read here as they are, as those of [`crate::http1`].

#[path = "../../crates/proxy/src/hpack/decoder.rs"]
mod decoder;
#[path = "../../crates/proxy/src/hpack/encoder.rs"]
mod encoder;
#[path = "../../crates/proxy/src/hpack/huffman.rs"]
pub(crate) mod huffman;
#[path = "../../crates/proxy/src/hpack/integer.rs"]
pub(crate) mod integer;
#[path = "../../crates/proxy/src/hpack/tables.rs"]
mod tables;

pub(crate) use decoder::Decoder;
pub(crate) use encoder::{field, status, table_size_zero};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

type Fields = Vec<(Vec<u8>, Vec<u8>)>;

fn read(decoder: &mut Decoder, block: &[u8]) -> Result<Fields, Malformed> {
    let mut fields = Fields::new();
    let take = |name: &[u8], value: &[u8]| fields.push((name.to_vec(), value.to_vec()));
    decoder.decode(block, take)?;
    Ok(fields)
}

/// Blocks of one connection, each behind an octet with its length: what was read is written, and
/// read again the same.
pub(crate) fn blocks(mut octets: &[u8]) {
    let mut decoder = Decoder::new();
    while let Some((length, rest)) = octets.split_first() {
        let (block, rest) = rest.split_at(usize::from(*length).min(rest.len()));
        octets = rest;
        let Ok(fields) = read(&mut decoder, block) else {
            return;
        };
        let mut again = Vec::new();
        table_size_zero(&mut again);
        fields
            .iter()
            .for_each(|(name, value)| field(&mut again, name, value));
        assert_eq!(read(&mut Decoder::new(), &again), Ok(fields));
    }
}
