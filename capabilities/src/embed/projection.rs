//! What is fitted to the built-in model's space beside the model: how a description is turned towards the requests it stands for, and
//! which directions of a request are enough to compare it with others.
//!
//! A description says what a thing is, a request says what is wanted. The model was trained to bring both together; a matrix fitted inside
//! labelled sets (`training/fit.py`: softmax over what is offered, from half the identity, with decay towards it) turns the description, a
//! second one the description with its name before it, and both add up to one vector. That finds the right one in 1.5 more of 100 cases
//! than their plain mean, and lets fewer unserved requests through. Descriptions are turned once, when a body is read; requests are
//! compared as they are. Requests among themselves are compared in their 128 principal directions, which orders them as well as all 384.

use super::UnitVector;
use super::vector::normalised;
use crate::index::{Query, Rows};

pub(crate) static BUILT_IN: &[u8] = include_bytes!("../../assets/routing/projection.i8");
const MAGIC: &[u8] = b"ATMOPR2\n";
const SCALE_BYTES: usize = 4;

/// Three matrices over one space, in int8 with a scale for each row.
#[derive(Debug, Clone)]
pub struct Projection {
    /// Empty where descriptions are to stay as they are.
    turn: Rows,
    /// For the description with its name before it.
    turn_named: Rows,
    reduce: Rows,
}

impl Projection {
    /// The one in this binary; `None` where the file does not fit `dims` dimensions.
    pub fn built_in(dims: usize) -> Option<Self> {
        let rows = BUILT_IN.strip_prefix(MAGIC)?.chunks_exact(SCALE_BYTES + dims);
        let (mut turn, mut turn_named, mut reduce) = (Rows::default(), Rows::default(), Rows::default());
        for (number, row) in rows.enumerate() {
            let matrix = match number / dims {
                0 => &mut turn,
                1 => &mut turn_named,
                _ => &mut reduce,
            };
            matrix.push(&read_row(row)?, &[]);
        }
        (turn_named.len() == dims && !reduce.is_empty()).then_some(Self { turn, turn_named, reduce })
    }

    /// The same, leaving descriptions as they are.
    pub fn without_turning(self) -> Self {
        Self { turn: Rows::default(), turn_named: Rows::default(), ..self }
    }

    /// The number of principal directions.
    pub fn reduced_dims(&self) -> usize {
        self.reduce.len()
    }

    /// A centred description, and the same with its name before it where that is known, turned towards requests; `None` where nothing is
    /// left of them.
    pub fn turned(&self, centred: &[f32], named: Option<&[f32]>) -> Option<Vec<f32>> {
        if self.turn.is_empty() {
            return Some(centred.to_vec());
        }
        let mut turned = self.turn.similarities(&Query::of(centred));
        if let Some(named) = named {
            let added = self.turn_named.similarities(&Query::of(named));
            turned.iter_mut().zip(added).for_each(|(value, added)| *value += added);
        }
        normalised(turned)
    }

    /// A centred request in the principal directions; `None` where nothing is left of it.
    pub fn reduced(&self, request: &Query) -> Option<Vec<f32>> {
        normalised(self.reduce.similarities(&request.without_middle()))
    }
}

fn read_row(row: &[u8]) -> Option<UnitVector> {
    let (scale, values) = row.split_at_checked(SCALE_BYTES)?;
    let scale = f32::from_le_bytes(scale.try_into().ok()?);
    Some(UnitVector { values: values.iter().map(|value| *value as i8).collect(), scale, centred_norm: 1.0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_one_is_whole() {
        let projection = Projection::built_in(384).unwrap();
        let one: Vec<f32> = (0..384).map(|place| if place == 7 { 1.0 } else { 0.01 }).collect();
        assert_eq!(projection.turned(&one, None).unwrap().len(), 384);
        assert_eq!(projection.reduced(&Query::of(&one)).unwrap().len(), 128);
        assert_eq!(projection.turned(&[0.0; 384], Some(&[0.0; 384])), None);
    }
}
