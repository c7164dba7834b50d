"""Sources, the loop and sinks: start from ``edgecv.pipelines.pipeline.Pipeline``."""
