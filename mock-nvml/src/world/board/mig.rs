//! What a handle refers to on a partitioned GPU: MIG layout, instances and names.

use crate::{
    return_code::{NvmlResult, ReturnCode},
    scenario::mig::{ComputeInstance, GpuInstance, MigLayout},
    world::board::{Board, view::BoardView},
};

impl Board {
    /// The same GPU, seen through another handle.
    pub(crate) fn with_view(self, seat: BoardView) -> Self {
        Self { view: seat, ..self }
    }

    /// What the handle refers to.
    pub(crate) fn view(&self) -> &BoardView {
        &self.view
    }

    /// The MIG layout of the GPU; `None` if MIG mode is off.
    pub(crate) fn layout(&self) -> Option<&MigLayout> {
        self.gpu.layout(self.now.world)
    }

    /// The MIG layout of a whole GPU.
    ///
    /// # Errors
    /// `NOT_SUPPORTED` if MIG mode is off, `INVALID_ARGUMENT` for a MIG device or instance.
    pub(crate) fn require_layout(&self) -> NvmlResult<&MigLayout> {
        match self.view {
            BoardView::Board => self.layout().ok_or(ReturnCode::NOT_SUPPORTED),
            BoardView::MigDevice(..)
            | BoardView::GpuInstance(_)
            | BoardView::ComputeInstance(..) => Err(ReturnCode::INVALID_ARGUMENT),
        }
    }

    /// Whether MIG mode is on.
    ///
    /// # Errors
    /// `NOT_SUPPORTED` if the model is not MIG-capable.
    pub(crate) fn mig_mode(&self) -> NvmlResult<bool> {
        if self.model().mig().is_empty() {
            return Err(ReturnCode::NOT_SUPPORTED);
        }
        Ok(self.layout().is_some())
    }

    /// The instances of a MIG device.
    ///
    /// # Errors
    /// `NOT_SUPPORTED` for a whole GPU, `INVALID_ARGUMENT` for a GPU or compute instance.
    pub(crate) fn mig_device(&self) -> NvmlResult<(&GpuInstance, &ComputeInstance)> {
        match &self.view {
            BoardView::Board => Err(ReturnCode::NOT_SUPPORTED),
            BoardView::MigDevice(gi, ci) => Ok((gi, ci)),
            BoardView::GpuInstance(_) | BoardView::ComputeInstance(..) => {
                Err(ReturnCode::INVALID_ARGUMENT)
            }
        }
    }

    /// Its name (`nvmlDeviceGetName`).
    pub(crate) fn name(&self) -> String {
        let name = self.model().name;
        match &self.view {
            BoardView::MigDevice(gi, ci) => format!("{name} MIG {}", gi.device_profile(ci)),
            BoardView::Board | BoardView::GpuInstance(_) | BoardView::ComputeInstance(..) => {
                name.to_owned()
            }
        }
    }

    /// Its UUID (`nvmlDeviceGetUUID`).
    pub(crate) fn uuid(&self) -> String {
        self.mig_device().map_or_else(|_| self.gpu.uuid.clone(), |(_, ci)| ci.uuid.clone())
    }
}
