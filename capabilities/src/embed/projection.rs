//! What is fitted to the built-in model's space beside the model: how a description is turned towards the requests it stands for, and
//! which directions of a request are enough to compare it with others.
//!
//! A description says what a thing is, a request says what is wanted; between them a plain cosine finds the right one in a third of the
//! cases. A matrix fitted on pairs of both (`training/fit.py`: softmax over all descriptions, from the identity, with decay towards it)
//! lifts that by half. Descriptions are turned once, when a body is read; requests are compared as they are. Requests among themselves
//! are compared in their 128 principal directions, which orders them as well as all 384.

use super::UnitVector;
use super::vector::normalised;
use crate::index::{Query, Rows};

pub(crate) static BUILT_IN: &[u8] = include_bytes!("../../assets/routing/projection.i8");
const MAGIC: &[u8] = b"ATMOPR1\n";
const SCALE_BYTES: usize = 4;

/// Two matrices over one space, in int8 with a scale for each row.
#[derive(Debug, Clone)]
pub struct Projection {
    /// Empty where descriptions are to stay as they are.
    turn: Rows,
    reduce: Rows,
}

impl Projection {
    /// The one in this binary; `None` where the file does not fit `dims` dimensions.
    pub fn built_in(dims: usize) -> Option<Self> {
        let rows = BUILT_IN.strip_prefix(MAGIC)?.chunks_exact(SCALE_BYTES + dims);
        let (mut turn, mut reduce) = (Rows::default(), Rows::default());
        for (number, row) in rows.enumerate() {
            let matrix = if number < dims { &mut turn } else { &mut reduce };
            matrix.push(&read_row(row)?, &[]);
        }
        (turn.len() == dims && !reduce.is_empty()).then_some(Self { turn, reduce })
    }

    /// The same, leaving descriptions as they are.
    pub fn without_turning(self) -> Self {
        Self { turn: Rows::default(), ..self }
    }

    /// The number of principal directions.
    pub fn reduced_dims(&self) -> usize {
        self.reduce.len()
    }

    /// A centred description turned towards requests; `None` where nothing is left of it.
    pub fn turned(&self, centred: &[f32]) -> Option<Vec<f32>> {
        if self.turn.is_empty() {
            return Some(centred.to_vec());
        }
        normalised(self.turn.similarities(&Query::of(centred)))
    }

    /// A centred request in the principal directions; `None` where nothing is left of it.
    pub fn reduced(&self, centred: &[f32]) -> Option<Vec<f32>> {
        normalised(self.reduce.similarities(&Query::of(centred)))
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
        assert_eq!(projection.turned(&one).unwrap().len(), 384);
        assert_eq!(projection.reduced(&one).unwrap().len(), 128);
        assert_eq!(projection.turned(&[0.0; 384]), None);
    }
}
