//! Vectors as they travel and as they are compared: int8 with one scale.
//!
//! 384 dimensions take 388 bytes, and the cosine of two vectors moves by at most 0.0025. Foreign vectors are renormalised, and refused
//! where they were not unit vectors to begin with.

use atmo_protocol::record::QuantizedVector;

/// How far from 1 the norm of an announced vector may be.
pub const NORM_TOLERANCE: f32 = 0.02;

/// A unit vector in int8, with what is needed to compare it after the space's mean is taken away.
#[derive(Clone, PartialEq, Debug)]
pub struct UnitVector {
    pub values: Box<[i8]>,
    /// `scale * values` has norm 1.
    pub scale: f32,
    /// Length of `scale * values - mean`, never zero.
    pub centred_norm: f32,
}

/// Why an announced vector is not used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum VectorFault {
    #[error("the vector lies in another embedding space")]
    Space,
    #[error("the vector has the wrong number of dimensions")]
    Dimensions,
    #[error("the vector is not a unit vector")]
    Norm,
}

/// `vector` as int8. Values stay within -127..=127, so that negating one cannot overflow. A vector without a direction becomes zeros.
pub fn quantise(vector: &[f32]) -> QuantizedVector {
    let largest = vector.iter().fold(0f32, |largest, value| largest.max(value.abs()));
    if !largest.is_finite() || largest == 0.0 {
        return QuantizedVector { scale: 0.0, values: vec![0; vector.len()] };
    }
    let scale = largest / 127.0;
    QuantizedVector { scale, values: vector.iter().map(|value| (value / scale).round().clamp(-127.0, 127.0) as i8).collect() }
}

impl UnitVector {
    /// Reads a vector that someone announced: `mean` (of the space) has as many dimensions as it must have.
    pub fn read(announced: &QuantizedVector, mean: &[f32]) -> Result<Self, VectorFault> {
        if announced.values.len() != mean.len() {
            return Err(VectorFault::Dimensions);
        }
        let length = announced.values.iter().map(|value| f32::from(*value).powi(2)).sum::<f32>().sqrt();
        let norm = length * announced.scale;
        if !(norm.is_finite() && (norm - 1.0).abs() <= NORM_TOLERANCE) {
            return Err(VectorFault::Norm);
        }
        let values: Box<[i8]> = announced.values.iter().map(|value| (*value).max(-127)).collect();
        let scale = 1.0 / length;
        let centred = values.iter().zip(mean).map(|(value, mean)| (f32::from(*value) * scale - mean).powi(2)).sum::<f32>().sqrt();
        Ok(Self { values, scale, centred_norm: centred.max(f32::EPSILON) })
    }

    /// The vector as f32.
    pub fn to_f32(&self) -> Vec<f32> {
        self.values.iter().map(|value| f32::from(*value) * self.scale).collect()
    }
}

/// `vector` scaled to norm 1; `None` where it has no direction.
pub fn normalised(mut vector: Vec<f32>) -> Option<Vec<f32>> {
    let norm = vector.iter().map(|value| value * value).sum::<f32>().sqrt();
    if !(norm.is_finite() && norm > f32::EPSILON) {
        return None;
    }
    vector.iter_mut().for_each(|value| *value /= norm);
    Some(vector)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn directions() -> impl Strategy<Value = Vec<f32>> {
        prop::collection::vec(-1f32..1.0, 64).prop_filter_map("has a direction", normalised)
    }

    proptest! {
        #[test]
        fn quantising_keeps_the_direction(vector in directions()) {
            let read = UnitVector::read(&quantise(&vector), &[0.0; 64]).expect("a unit vector is read");
            let cosine: f32 = read.to_f32().iter().zip(&vector).map(|(a, b)| a * b).sum();
            prop_assert!(cosine > 0.999, "{cosine}");
        }

        #[test]
        fn any_announced_vector_is_read_or_refused(scale in any::<f32>(), values in prop::collection::vec(any::<i8>(), 0..80)) {
            if let Ok(read) = UnitVector::read(&QuantizedVector { scale, values }, &[0.01; 64]) {
                let norm = read.to_f32().iter().map(|value| value * value).sum::<f32>().sqrt();
                prop_assert!((norm - 1.0).abs() < 0.01 && read.centred_norm.is_finite());
            }
        }
    }

    #[test]
    fn vectors_without_a_direction_are_refused() {
        let refused = |scale, values: Vec<i8>| UnitVector::read(&QuantizedVector { scale, values }, &[0.0; 4]).unwrap_err();
        assert_eq!(refused(f32::NAN, vec![1, 2, 3, 4]), VectorFault::Norm);
        assert_eq!(refused(f32::INFINITY, vec![1, 2, 3, 4]), VectorFault::Norm);
        assert_eq!(refused(1.0, vec![0; 4]), VectorFault::Norm);
        assert_eq!(refused(0.6, vec![1; 4]), VectorFault::Norm, "a norm of 1.2");
        assert_eq!(refused(1.0, vec![1; 3]), VectorFault::Dimensions);
        assert_eq!(quantise(&[f32::NAN, 1.0]).scale, quantise(&[f32::NAN, 1.0]).scale);
    }
}
