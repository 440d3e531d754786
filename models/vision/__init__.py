"""Vision: object detectors, and the conversion of pictures to their input.

`detector` runs YOLOX and other ONNX exports; `ultralytics_detector` is the adapter of an optional
package.
May import: the files of `models/`, and `pipeline/`.
"""
