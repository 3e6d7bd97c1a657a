//! What `top` shows, as the keys of its screen change it.

/// What is listed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TopView {
    /// GPUs.
    #[default]
    Gpus,
    /// Pods, with totals over all devices.
    Pods,
}

/// The order of the lines. Equal lines are in the order of the index or name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sort {
    /// Worst GPU first.
    #[default]
    Status,
    /// Index of the GPU, or name of the pod.
    Name,
    /// Highest utilization first.
    Sm,
    /// Most framebuffer first.
    Memory,
    /// Highest power draw first; GPUs only.
    Power,
}

impl Sort {
    /// The name in the footer.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::Name => "name",
            Self::Sm => "SM",
            Self::Memory => "memory",
            Self::Power => "power",
        }
    }
}

/// View, order, filter and details.
#[derive(Clone, Debug, Default)]
pub struct TopOptions {
    /// What is listed.
    pub view: TopView,
    /// Whether containers, processes, remedies and sources are listed, too.
    pub full: bool,
    /// Whether the MIG devices of a GPU are one line.
    pub folds_mig: bool,
    /// Whether the help is shown instead.
    pub help: bool,
    /// Words that a GPU or pod has to contain, in any case; empty for all.
    pub filter: String,
    /// The filter while it is typed.
    pub typed: Option<String>,
    /// The order that was chosen last, in any view.
    pub chosen_sort: Sort,
}

impl TopOptions {
    /// The order of the view.
    #[must_use]
    pub fn sort(&self) -> Sort {
        match (self.view, self.chosen_sort) {
            (TopView::Pods, Sort::Status | Sort::Power) => Sort::Memory,
            (_, sort) => sort,
        }
    }

    /// Changes to the next order of the view.
    pub fn sort_next(&mut self) {
        self.chosen_sort = match (self.view, self.sort()) {
            (_, Sort::Name) => Sort::Sm,
            (_, Sort::Sm) => Sort::Memory,
            (TopView::Gpus, Sort::Memory) => Sort::Power,
            (TopView::Gpus, Sort::Power) => Sort::Status,
            (_, Sort::Status) | (TopView::Pods, Sort::Memory | Sort::Power) => Sort::Name,
        };
    }

    /// The other view.
    pub fn switch_view(&mut self) {
        self.view = match self.view {
            TopView::Gpus => TopView::Pods,
            TopView::Pods => TopView::Gpus,
        };
    }

    /// Whether a text has all words of the filter, of what is typed or was accepted.
    #[must_use]
    pub fn matches(&self, text: &str) -> bool {
        let text = text.to_lowercase();
        let filter = self.typed.as_ref().unwrap_or(&self.filter).to_lowercase();
        filter.split_whitespace().all(|word| text.contains(word))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_view_has_its_orders() {
        let orders = |view| -> Vec<&str> {
            let mut options = TopOptions { view, ..TopOptions::default() };
            let mut order = || {
                let label = options.sort().label();
                options.sort_next();
                label
            };
            (0..6).map(|_| order()).collect()
        };
        let gpus = ["status", "name", "SM", "memory", "power", "status"];
        assert_eq!(orders(TopView::Gpus), gpus);
        let pods = ["memory", "name", "SM", "memory", "name", "SM"];
        assert_eq!(orders(TopView::Pods), pods);
    }

    #[test]
    fn filter_matches_all_words_in_any_case() {
        let options = TopOptions { filter: "ML gpu".to_owned(), ..TopOptions::default() };
        assert!(options.matches("GPU 3 ml/train") && !options.matches("GPU 3 serving"));
        assert!(TopOptions::default().matches(""));
    }
}
