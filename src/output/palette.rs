//! The colours of text.

use console::Style;

use crate::model::server_status::ServerState;
use crate::model::status::ObjectState;

/// How a text looks.
#[derive(Clone, Copy)]
pub(super) struct RenderOptions {
    /// The colours.
    pub(super) palette: Palette,
    /// The columns of the terminal, if the text is for a terminal.
    pub(super) width: Option<usize>,
}

/// The colours, or none.
#[derive(Clone, Copy)]
pub(super) struct Palette {
    color: bool,
}

impl Palette {
    pub(super) const fn new(color: bool) -> Self {
        Self { color }
    }

    fn with(self, style: Style, text: &str) -> String {
        if self.color { style.force_styling(true).apply_to(text).to_string() } else { text.to_string() }
    }

    pub(super) fn good(self, text: &str) -> String {
        self.with(Style::new().green(), text)
    }

    pub(super) fn bad(self, text: &str) -> String {
        self.with(Style::new().red(), text)
    }

    pub(super) fn odd(self, text: &str) -> String {
        self.with(Style::new().yellow(), text)
    }

    pub(super) fn faint(self, text: &str) -> String {
        self.with(Style::new().dim(), text)
    }

    pub(super) fn strong(self, text: &str) -> String {
        self.with(Style::new().bold(), text)
    }

    pub(super) fn server_state(self, state: ServerState) -> String {
        let word = column(state.name());
        match state {
            ServerState::Answering => self.good(&word),
            ServerState::Starting | ServerState::Unknown => self.odd(&word),
            ServerState::Absent
            | ServerState::Stopped
            | ServerState::Crashing
            | ServerState::Refusing
            | ServerState::Foreign => self.bad(&word),
        }
    }

    pub(super) fn object_state(self, state: ObjectState) -> String {
        let word = column(state.name());
        match state {
            ObjectState::InSync => self.good(&word),
            ObjectState::Edited | ObjectState::Unknown => self.odd(&word),
            ObjectState::Missing | ObjectState::Differs | ObjectState::Foreign => self.bad(&word),
        }
    }
}

/// A state, padded before it is coloured, because colours have no width.
fn column(word: &str) -> String {
    format!("{:<11}", word.replace('_', " "))
}
