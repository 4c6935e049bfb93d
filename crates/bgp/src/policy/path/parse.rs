//! From text to a tree.

use super::{AsPathRegexError, AsnSet};

/// Bound on groups within groups.
pub(super) const MAX_DEPTH: usize = 32;
/// Bound on the number in a repetition; more could not be written out anyway.
const MAX_REPEAT: usize = 512;

/// What one letter of the expression takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Letter {
    /// An AS in the set; or (`negated`) not in it.
    As { asns: AsnSet, negated: bool },
    /// The near end.
    Start,
    /// The far end.
    End,
}

/// An expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Tree {
    Letter(Letter),
    /// One after the other; none: the empty path.
    Sequence(Vec<Tree>),
    /// One of these.
    Either(Vec<Tree>),
    /// `max` of `None`: without end.
    Repeat {
        tree: Box<Tree>,
        min: usize,
        max: Option<usize>,
    },
}

pub(super) fn parse(text: &str) -> Result<Tree, AsPathRegexError> {
    let mut parser = Parser {
        octets: text.as_bytes(),
        at: 0,
    };
    let tree = parser.either(0)?;
    if parser.at < text.len() {
        return Err(parser.expected("an AS number, a group or an operator"));
    }
    Ok(tree)
}

struct Parser<'a> {
    octets: &'a [u8],
    at: usize,
}

impl Parser<'_> {
    fn expected(&self, expected: &'static str) -> AsPathRegexError {
        AsPathRegexError::Syntax {
            at: self.at,
            expected,
        }
    }

    /// The next octet that is no separator.
    fn peek(&mut self) -> Option<u8> {
        while self
            .octets
            .get(self.at)
            .is_some_and(|octet| matches!(octet, b' ' | b'\t' | b'_'))
        {
            self.at += 1;
        }
        self.octets.get(self.at).copied()
    }

    fn eat(&mut self, octet: u8) -> bool {
        let eaten = self.peek() == Some(octet);
        self.at += usize::from(eaten);
        eaten
    }

    fn either(&mut self, depth: usize) -> Result<Tree, AsPathRegexError> {
        if depth > MAX_DEPTH {
            return Err(AsPathRegexError::TooDeep);
        }
        let mut branches = vec![self.sequence(depth)?];
        while self.eat(b'|') {
            branches.push(self.sequence(depth)?);
        }
        Ok(Tree::Either(branches))
    }

    fn sequence(&mut self, depth: usize) -> Result<Tree, AsPathRegexError> {
        let mut trees = vec![];
        while let Some(tree) = self.atom(depth)? {
            trees.push(self.repeated(tree)?);
        }
        Ok(Tree::Sequence(trees))
    }

    fn atom(&mut self, depth: usize) -> Result<Option<Tree>, AsPathRegexError> {
        let letter = match self.peek() {
            Some(b'(') => {
                self.at += 1;
                let tree = self.either(depth + 1)?;
                if !self.eat(b')') {
                    return Err(self.expected("`)`"));
                }
                return Ok(Some(tree));
            }
            Some(b'0'..=b'9') => {
                let asn = self.number()?;
                Letter::As {
                    asns: [asn].into_iter().collect(),
                    negated: false,
                }
            }
            Some(b'.') => {
                self.at += 1;
                Letter::As {
                    asns: AsnSet::default(),
                    negated: true,
                }
            }
            Some(b'[') => self.class()?,
            Some(b'^') => {
                self.at += 1;
                Letter::Start
            }
            Some(b'$') => {
                self.at += 1;
                Letter::End
            }
            Some(_) | None => return Ok(None),
        };
        Ok(Some(Tree::Letter(letter)))
    }

    /// One repetition at most: `a{2}{2}` would hide what it costs.
    fn repeated(&mut self, tree: Tree) -> Result<Tree, AsPathRegexError> {
        let (min, max) = match self.peek() {
            Some(b'*') => (0, None),
            Some(b'+') => (1, None),
            Some(b'?') => (0, Some(1)),
            Some(b'{') => return self.counted(tree),
            Some(_) | None => return Ok(tree),
        };
        self.at += 1;
        Ok(Tree::Repeat {
            tree: Box::new(tree),
            min,
            max,
        })
    }

    fn counted(&mut self, tree: Tree) -> Result<Tree, AsPathRegexError> {
        self.at += 1;
        let min = self.number()? as usize;
        let max = if !self.eat(b',') {
            Some(min)
        } else if self.peek() == Some(b'}') {
            None
        } else {
            Some(self.number()? as usize)
        };
        if !self.eat(b'}') {
            return Err(self.expected("`}`"));
        }
        if max.is_some_and(|max| max < min) {
            return Err(self.expected("a greatest number not below the least, before this"));
        }
        if min.max(max.unwrap_or(0)) > MAX_REPEAT {
            return Err(AsPathRegexError::TooLong);
        }
        Ok(Tree::Repeat {
            tree: Box::new(tree),
            min,
            max,
        })
    }

    fn class(&mut self) -> Result<Letter, AsPathRegexError> {
        self.at += 1;
        let negated = self.eat(b'^');
        let mut ranges = vec![];
        while !self.eat(b']') {
            let first = self.number()?;
            let last = if self.eat(b'-') {
                self.number()?
            } else {
                first
            };
            if last < first {
                return Err(self.expected("a range from low to high, before this"));
            }
            ranges.push(first..=last);
        }
        if ranges.is_empty() {
            return Err(self.expected("an AS number in `[]`, before this"));
        }
        let asns = ranges.into_iter().collect();
        Ok(Letter::As { asns, negated })
    }

    fn number(&mut self) -> Result<u32, AsPathRegexError> {
        self.peek();
        let rest = self.octets.get(self.at..).unwrap_or_default();
        let digits = rest.iter().take_while(|octet| octet.is_ascii_digit());
        let mut number = None;
        let mut length = 0;
        for digit in digits {
            let next = number
                .unwrap_or(0_u32)
                .checked_mul(10)
                .and_then(|n| n.checked_add(u32::from(digit - b'0')));
            number = Some(next.ok_or_else(|| self.expected("a number of at most 32 bits"))?);
            length += 1;
        }
        let number = number.ok_or_else(|| self.expected("a number"))?;
        self.at += length;
        Ok(number)
    }
}
