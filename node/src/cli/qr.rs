//! A join code as a QR code in the terminal.

use qrcode::render::unicode::Dense1x2;
use qrcode::types::QrError;
use qrcode::{EcLevel, QrCode};

/// Why a code could not be drawn: it is longer than a QR code holds.
#[derive(Debug, thiserror::Error)]
#[error("this code cannot be drawn as a QR code ({0}); pass it on as text")]
pub struct CannotDraw(QrError);

/// `code` as blocks of half a line each. In capitals, which mean the same in a join code and take a third less room.
pub fn drawn(code: &str) -> Result<String, CannotDraw> {
    let drawn = QrCode::with_error_correction_level(code.to_ascii_uppercase(), EcLevel::L).map_err(CannotDraw)?;
    // Terminals are mostly dark: what is light in print is drawn.
    Ok(drawn.render::<Dense1x2>().dark_color(Dense1x2::Light).light_color(Dense1x2::Dark).build())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_code_can_be_drawn_and_what_is_longer_is_refused() {
        let longest = "q".repeat(atmo_protocol::invitation::CODE_CHARS_MAX);
        let lines: Vec<String> = drawn(&longest).expect("it fits").lines().map(str::to_owned).collect();
        assert!(lines.len() > 20 && lines.iter().all(|line| line.chars().count() == lines[0].chars().count()));
        assert!(drawn(&"q".repeat(5000)).is_err());
    }
}
