//! Questions and answers by which a guest estimates its counter: two tables of one slot.
//!
//! Signals may take tens of microseconds, memory a tenth of one. So whoever signals a question has the host wait a
//! little for the next, and a burst of them costs one signal: of its exchanges, the narrowest takes no longer than the
//! caches do.

use shmbus_shm::Window;
use shmbus_shm::slot::ReadError as SlotError;
use shmbus_table::{
    Epoch, Header, InvalidValue, ReadError, TableError, TypedReadError, TypedReader, TypedWriter,
    Value,
};

use super::counter::Ticks;
use super::host::monotonic_ns;

/// A guest's question: its counter when it asked, by which the answer names it. Two questions are never alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Question {
    /// The guest's counter.
    pub sent: u64,
}

impl Value for Question {
    const TYPE_ID: u32 = u32::from_le_bytes(*b"QUES");
    const WORDS: usize = 1;

    fn encode(&self, words: &mut [u64]) {
        words.copy_from_slice(&[self.sent]);
    }

    fn decode(words: &[u64]) -> Result<Self, InvalidValue> {
        match words {
            &[sent] => Ok(Self { sent }),
            _ => Err(InvalidValue {
                word: words.len(),
                found: 0,
                expected: "the only word",
            }),
        }
    }
}

/// The host's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Which question it answers.
    pub to: Question,
    /// The host's counter, read after the question was seen and before this was written.
    pub host: u64,
}

impl Value for Answer {
    const TYPE_ID: u32 = u32::from_le_bytes(*b"ANSW");
    const WORDS: usize = 2;

    fn encode(&self, words: &mut [u64]) {
        words.copy_from_slice(&[self.to.sent, self.host]);
    }

    fn decode(words: &[u64]) -> Result<Self, InvalidValue> {
        match words {
            &[sent, host] => Ok(Self {
                to: Question { sent },
                host,
            }),
            _ => Err(InvalidValue {
                word: words.len(),
                found: 0,
                expected: "one of two words",
            }),
        }
    }
}

/// A table of one slot, in this side's own memory, under the epoch after that of one that was there.
pub(super) fn set_up<V: Value, W: Window>(
    window: W,
) -> Result<TypedWriter<V, W, Vec<u64>>, TableError> {
    let epoch = Header::read(&window)
        .ok()
        .and_then(|header| header.epoch.next())
        .unwrap_or(Epoch::FIRST);
    TypedWriter::create(window, 1, epoch, vec![0])
}

/// The other side's table of one slot.
pub(super) fn attach<V: Value, W: Window>(
    window: W,
) -> Result<TypedReader<V, W, Vec<u64>>, TableError> {
    TypedReader::attach(window, vec![0], vec![0])
}

/// The newest value of a table of one slot; none if there is none, or it changes all the time.
pub(super) fn newest<V: Value, W: Window>(
    table: &mut TypedReader<V, W, Vec<u64>>,
) -> Result<Option<V>, TypedReadError> {
    let outcome = match table.read(0) {
        Err(TypedReadError::Read(ReadError::Slot(SlotError::Restarted { .. }))) => table.read(0),
        outcome => outcome,
    };
    match outcome {
        Ok((value, _)) => Ok(Some(value)),
        Err(TypedReadError::Read(ReadError::Slot(SlotError::Lapped | SlotError::NeverWritten))) => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// How long the host waits for the next question, in nanoseconds.
const PATIENCE_NS: u64 = 10_000;

/// How long it goes on so.
const BURST_NS: u64 = 50_000;

/// When it does so again for the same guest: whatever a guest asks, waiting takes a hundredth of the host's time.
const PAUSE_NS: u64 = 100 * BURST_NS;

/// The host's side, for one guest.
#[derive(Debug)]
pub(super) struct Answerer<W: Window> {
    questions: TypedReader<Question, W, Vec<u64>>,
    answers: TypedWriter<Answer, W, Vec<u64>>,
    answered: Option<Question>,
    /// Before that it answers what is there, and does not wait.
    patient_from_ns: u64,
}

impl<W: Window> Answerer<W> {
    pub(super) fn new(questions: W, answers: W) -> Result<Self, TableError> {
        Ok(Self {
            questions: attach(questions)?,
            answers: set_up(answers)?,
            answered: None,
            patient_from_ns: 0,
        })
    }

    /// Answers a burst of questions; returns how many. Nobody is told of the answers: who asks, looks.
    pub(super) fn answer(
        &mut self,
        counter: &impl Ticks,
    ) -> Result<u64, Box<dyn std::error::Error>> {
        let start = monotonic_ns();
        let patient = start >= self.patient_from_ns;
        if patient {
            self.patient_from_ns = start + PAUSE_NS;
        }
        let (mut answers, mut now, mut last) = (0, start, start);
        loop {
            if self.answer_newest(counter)? {
                answers += 1;
                last = now;
            }
            now = monotonic_ns();
            if !patient || now - last >= PATIENCE_NS || now - start >= BURST_NS {
                return Ok(answers);
            }
            std::hint::spin_loop();
        }
    }

    fn answer_newest(&mut self, counter: &impl Ticks) -> Result<bool, Box<dyn std::error::Error>> {
        let Some(question) = newest(&mut self.questions)? else {
            return Ok(false);
        };
        if self.answered == Some(question) {
            return Ok(false);
        }
        // Behind the load of the question, as all readings of a counter are; before the store of what it is part of.
        let host = counter.now();
        let answer = Answer { to: question, host };
        let _ = self.answers.publish(0, &answer)?;
        self.answered = Some(question);
        Ok(true)
    }
}
