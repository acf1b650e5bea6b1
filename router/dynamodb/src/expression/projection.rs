//! Projection expressions: which parts of an item are wanted.

use super::parser::{overlap, parse};
use super::placeholders::Placeholders;
use crate::error::ApiError;
use evenkeel_expression::{Path, Step};

/// The parts of an item that are wanted, as a tree: paths that begin alike share their beginning.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Projection {
    /// What is wanted at each name or index, in order.
    pub parts: Vec<(Step, Part)>,
}

/// What is wanted of a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// All of it.
    Whole,
    /// Parts of it, if it is a map or list.
    Parts(Projection),
}

impl Projection {
    /// The tree of paths of which none is the beginning of another; of those that are, the shorter counts.
    pub fn new<'p>(paths: impl IntoIterator<Item = &'p Path>) -> Projection {
        let mut tree = Projection::default();
        for path in paths {
            tree.insert(path.steps());
        }
        tree
    }

    fn insert(&mut self, steps: &[Step]) {
        let Some((first, rest)) = steps.split_first() else { return };
        let at = match self.parts.binary_search_by(|(step, _)| step.cmp(first)) {
            Ok(at) => at,
            Err(at) => {
                self.parts.insert(at, (first.clone(), Part::Parts(Projection::default())));
                at
            }
        };
        match (&mut self.parts[at].1, rest.is_empty()) {
            (part, true) => *part = Part::Whole,
            (Part::Parts(tree), false) => tree.insert(rest),
            (Part::Whole, false) => {}
        }
    }
}

/// Parses a projection expression.
///
/// # Errors
/// DynamoDB's texts.
pub fn parse_projection(source: &str, placeholders: &Placeholders) -> Result<Projection, ApiError> {
    parse("ProjectionExpression", source, placeholders, |parser| {
        let mut paths = vec![parser.path()?];
        while parser.accept(",") {
            paths.push(parser.path()?);
        }
        if let Some(fault) = overlap(&paths.iter().collect::<Vec<_>>()) {
            parser.note(fault);
        }
        Ok(Projection::new(&paths))
    })
}
