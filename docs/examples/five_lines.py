import edgecv

model = edgecv.load("yolov8n.ecv")
for result in edgecv.Pipeline("clip.mp4", model):
    print(result.frame.index, result.names, result.age_ms)
