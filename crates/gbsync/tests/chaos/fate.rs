//! What becomes of a message on its way.

use crate::shop::Dice;

/// Spoiled messages of a hundred.
const SPOILED_PERCENT: u64 = 22;

/// What becomes of one request and its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fate {
    /// Nothing.
    Passes,
    /// The server sees nothing of it, and the connection ends.
    RequestDropped,
    /// The server sees a part of it.
    RequestCut,
    /// The server does it, and the connection ends without an answer.
    AnswerDropped,
    /// The server does it, and the connection ends within the answer.
    AnswerCut,
    /// The server does it, and the answer is a part that claims to be all.
    AnswerShort,
    /// It arrives twice, and the second answer comes back.
    Doubled,
    /// Its connection ends, and the server gets it later, when others came before it.
    Late,
    /// It takes a while.
    Slow,
    /// A captive portal answers.
    Portal,
    /// The server does it, and a captive portal answers.
    PortalAfter,
    /// A proxy answers that there is no server.
    BadGateway,
    /// A proxy answers that it is too much.
    TooMany,
    /// The connection is reset.
    Reset,
    /// A stream of the log ends, at any byte. No message has this fate: it comes when the stream does.
    StreamCut,
}

/// All that spoils a message.
pub const SPOILING: [Fate; 13] = [
    Fate::RequestDropped,
    Fate::RequestCut,
    Fate::AnswerDropped,
    Fate::AnswerCut,
    Fate::AnswerShort,
    Fate::Doubled,
    Fate::Late,
    Fate::Slow,
    Fate::Portal,
    Fate::PortalAfter,
    Fate::BadGateway,
    Fate::TooMany,
    Fate::Reset,
];

impl Fate {
    pub fn draw(dice: &mut Dice) -> Self {
        if dice.below(100) >= SPOILED_PERCENT { Self::Passes } else { SPOILING[dice.below(13) as usize] }
    }
}
