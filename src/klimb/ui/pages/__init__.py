"""Pages of HTML that load nothing and send nothing: of runs, audits and studies."""
