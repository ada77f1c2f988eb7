//! Interrupts: which event signals which MSI-X vector (virtio 1.4, section 4.1.5.1.2), and what one was about without
//! MSI-X.

use std::os::fd::BorrowedFd;

use super::device::{Stage, VirtioPci};
use super::error::{DeviceError, Event};
use crate::pci::error::FunctionError;
use crate::pci::function::Function;

/// `VIRTIO_MSI_NO_VECTOR`: written it unmaps an event, read it says that a mapping failed.
const NO_VECTOR: u16 = 0xffff;

/// What an interrupt without MSI-X was about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InterruptStatus {
    /// Some queue has used buffers.
    pub queue: bool,
    /// The configuration has changed.
    pub configuration: bool,
}

impl<F: Function> VirtioPci<F> {
    /// Has vector number N signal eventfd number N from now on, once an event is mapped to it.
    ///
    /// # Errors
    ///
    /// [`DeviceError::Function`], also if there are more eventfds than the device has vectors.
    pub fn enable_vectors(&mut self, eventfds: &[BorrowedFd<'_>]) -> Result<(), DeviceError> {
        self.expect(
            &[Stage::Reset, Stage::Configuring, Stage::Live],
            "enable vectors",
        )?;
        let (wanted, found) = (eventfds.len(), self.available_vectors());
        let vectors = u16::try_from(wanted)
            .ok()
            .filter(|vectors| *vectors <= found)
            .ok_or(FunctionError::Vectors { wanted, found })?;
        self.function.enable_vectors(eventfds)?;
        self.vectors = vectors;
        Ok(())
    }

    /// Has no vector signal anything.
    pub(super) fn disable_vectors(&mut self) -> Result<(), DeviceError> {
        if self.vectors > 0 {
            self.vectors = 0;
            self.function.disable_vectors()?;
        }
        Ok(())
    }

    /// Maps changes of the configuration to an enabled vector, or to none.
    ///
    /// # Errors
    ///
    /// [`DeviceError::NoVector`], [`DeviceError::VectorRefused`]; latched: [`DeviceError::Vector`].
    pub fn set_config_vector(&mut self, vector: Option<u16>) -> Result<(), DeviceError> {
        self.expect(
            &[Stage::Configuring, Stage::Live],
            "map configuration changes to a vector",
        )?;
        self.latching(|device| device.map_vector(Event::Configuration, vector))
    }

    /// Maps an event to a vector; the queue that it is about is selected.
    pub(super) fn map_vector(&self, event: Event, vector: Option<u16>) -> Result<(), DeviceError> {
        let enabled = self.vectors;
        if let Some(vector) = vector
            && vector >= enabled
        {
            return Err(DeviceError::NoVector {
                event,
                vector,
                enabled,
            });
        }
        let expected = vector.unwrap_or(NO_VECTOR);
        let found = match event {
            Event::Configuration => self.common.map_config_vector(expected)?,
            Event::Queue(_) => self.common.map_queue_vector(expected)?,
        };
        if found == expected {
            Ok(())
        } else if found == NO_VECTOR {
            let vector = expected;
            Err(DeviceError::VectorRefused { event, vector })
        } else {
            Err(DeviceError::Vector {
                event,
                expected,
                found,
            })
        }
    }

    /// What the last interrupt was about, where MSI-X is not enabled; reading it acknowledges the interrupt.
    ///
    /// # Errors
    ///
    /// [`DeviceError::Access`].
    pub fn interrupt_status(&mut self) -> Result<InterruptStatus, DeviceError> {
        self.expect(
            &[Stage::Reset, Stage::Configuring, Stage::Live],
            "read its interrupt status",
        )?;
        self.latching(|device| {
            let status = device.isr.read_u8(0)?;
            Ok(InterruptStatus {
                queue: status & 1 != 0,
                configuration: status & 2 != 0,
            })
        })
    }
}
