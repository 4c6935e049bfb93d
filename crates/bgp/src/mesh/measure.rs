//! Sixteen bits for a wide range: a 12-bit mantissa and a 4-bit exponent.

/// A measured quantity as it goes on the wire: mantissa in the high 12 bits, exponent in the low
/// 4; the smallest exponent that fits, rounded to nearest. At most 4095 · 2¹⁵ = 134 184 960;
/// relative error at most 2⁻¹².
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Measure(u16);

impl Measure {
    /// The greatest quantity there is.
    pub const MAX: u32 = 4095 << 15;
    const MANTISSA: u64 = 4095;

    /// The nearest representable quantity; above [`Measure::MAX`] it saturates.
    #[must_use]
    pub fn new(quantity: u64) -> Self {
        let quantity = quantity.min(u64::from(Self::MAX));
        let mut exponent = 0u16;
        let mut mantissa = quantity;
        while mantissa > Self::MANTISSA && exponent < 15 {
            exponent += 1;
            mantissa = (quantity + (1 << (exponent - 1))) >> exponent;
        }
        let mantissa = u16::try_from(mantissa.min(Self::MANTISSA)).unwrap_or(0);
        Measure(mantissa << 4 | exponent)
    }

    /// The quantity.
    #[must_use]
    pub const fn quantity(self) -> u32 {
        (self.0 as u32 >> 4) << (self.0 & 0xF)
    }

    /// The two octets as a number.
    #[must_use]
    pub const fn bits(self) -> u16 {
        self.0
    }

    /// From the two octets; any bits are a quantity.
    #[must_use]
    pub const fn from_bits(bits: u16) -> Self {
        Measure(bits)
    }
}
